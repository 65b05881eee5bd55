"""Rules for raw `keras.ops` calls, whose axis numbers are mapped to 3D by name."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.rules.base import LayerCall, Lifted, LiftRule
from voxlift.models.lifting.rules.indexing import (
    lift_expand_dims,
    lift_get_item,
    lift_reshape_operation,
    lift_split,
    lift_squeeze,
)
from voxlift.models.lifting.rules.merging import broadcast_inputs, lift_concatenate, require_compatible
from voxlift.models.lifting.rules.pooling import lift_resize
from voxlift.models.lifting.rules.reshape import transpose_axes
from voxlift.models.lifting.rules.results import (
    as_list,
    keep_operation,
    require_single_features,
    with_arguments,
    without_axes,
)
from voxlift.models.lifting.types import Layer, Shape, TensorSpec, Value

Sizes: TypeAlias = tuple[int, ...]
KEEPS_SIGN = {"Cast", "StopGradient", "Copy", "Maximum", "Add", "Multiply", "Minimum", "Sqrt", "Divide"}
MAKES_NONNEGATIVE = {
    "Relu", "Relu6", "Sigmoid", "HardSigmoid", "Exp", "Exp2", "Absolute", "Abs", "Square", "Softplus",
}  # fmt: skip
POINTWISE = {
    "Abs", "Absolute", "Add", "Arctan", "Cast", "Ceil", "Celu", "Clip", "Copy", "Cos", "Cosh", "Divide",
    "DivideNoNan", "Elu", "Equal", "Erf", "Exp", "Exp2", "Expm1", "Floor", "FloorDivide", "Gelu", "Greater",
    "GreaterEqual", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh", "Isfinite", "Isinf", "Isnan",
    "LeakyRelu", "Less", "LessEqual", "Log", "Log10", "Log1p", "Log2", "LogSigmoid", "Logaddexp",
    "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum", "Minimum", "Mod", "Multiply", "NanToNum", "Negative",
    "NotEqual", "OnesLike", "Power", "Reciprocal", "Relu", "Relu6", "Round", "Rsqrt", "Selu", "Sigmoid",
    "Sign", "Silu", "Sin", "Sinh", "SoftShrink", "Softplus", "Softsign", "SparsePlus", "Sqrt", "Square",
    "Squareplus", "StopGradient", "Subtract", "Tan", "Tanh", "TanhShrink", "Threshold", "TrueDivide", "Trunc",
    "Where", "ZerosLike",
}  # fmt: skip
REDUCTIONS = {
    "All", "Amax", "Amin", "Any", "Argmax", "Argmin", "CountNonzero", "Logsumexp", "Max", "Mean", "Median",
    "Min", "Nanmax", "Nanmean", "Nanmin", "Nansum", "Prod", "Std", "Sum", "Var",
}  # fmt: skip
# What a reduction of D equal slices makes of the result of one; the others give the same.
SCALED_BY_DEPTH = {
    "CountNonzero": "times {depth}", "Sum": "times {depth}", "Nansum": "times {depth}",
    "Logsumexp": "plus log({depth})", "Prod": "to the power of {depth}",
}  # fmt: skip
ALONG_AXIS = {"Cumprod", "Cumsum", "Flip", "LogSoftmax", "Softmax", "Sort", "Normalize"}


def find_operation_rule(operation: Layer) -> LiftRule | None:
    """Return the rule for a raw operation of `keras.ops`, by the name of its class."""
    kind = type(operation)
    if not kind.__module__.startswith("keras.") or ".ops." not in kind.__module__:
        return None
    name = kind.__name__
    families: tuple[tuple[set[str], LiftRule], ...] = (
        (POINTWISE, lift_pointwise),
        (REDUCTIONS, lift_reduction),
        (ALONG_AXIS, lift_along_axis),
    )
    return next((rule for names, rule in families if name in names), RULES_BY_NAME.get(name))


def lift_pointwise(call: LayerCall) -> Lifted:
    """Return the same operation; constants keep the axes of the 2D tensor that they lie along.

    Raises:
        UnsupportedError: A constant does not fit, or the inputs do not broadcast along depth.
    """
    if len(call.inputs) > 1:
        _require_broadcast(call)
    output, name = broadcast_inputs(call), type(call.layer).__name__
    constants = _constants(call)
    shapes = [_align_constant(call, output, constant.shape) for constant in constants]
    for constant, shape in zip(constants, shapes, strict=True):
        _require_constant(call, output.shape, constant.shape, shape)
    nonnegative = name in MAKES_NONNEGATIVE or (
        name in KEEPS_SIGN
        and all(spec.is_nonnegative for spec in call.inputs)
        and all((constant >= 0).all() for constant in constants)
    )
    lifted = with_arguments(call, output.replace(is_nonnegative=nonnegative))
    return lifted.replace(**_align_arguments(call, output))


def _require_broadcast(call: LayerCall) -> None:
    require_compatible(call.inputs)
    has_depth = ["D" in spec.axes for spec in call.inputs]
    if any(has_depth) and not all(has_depth):
        raise UnsupportedError(
            f"tensors with axes {', '.join(spec.axes for spec in call.inputs)} do not broadcast along depth.",
            "Pool with keepdims=True, or reshape to (1, 1, C) first.",
        )


def _constants(call: LayerCall) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(value) for value in _operands(call) if _is_constant(value)]


def _operands(call: LayerCall) -> list[Value]:
    return [*call.args, *call.kwargs.values()]


def _is_constant(value: Value) -> bool:
    """Return whether an argument is a number or an array of numbers, of any library."""
    if value is None or isinstance(value, bool | str | keras.KerasTensor):
        return False
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_is_constant, value))
    return isinstance(value, int | float | np.ndarray | np.generic | keras.Variable) or ops.is_tensor(value)


def _align_constant(call: LayerCall, output: TensorSpec, constant: Sizes) -> Sizes:
    """Return the shape that a constant needs in 3D, to lie along the axes that it has in 2D.

    Args:
        call: The operation where it is called.
        output: The tensor that it returns.
        constant: Shape of the constant.

    Raises:
        UnsupportedError: The constant has more axes than the 2D tensor.
    """
    if "D" not in output.axes or not constant:
        return constant
    rank = len(output.axes_2d)
    if len(constant) > rank:
        raise UnsupportedError(f"its constant of shape {constant} has more than the {rank} axes in 2D.")
    shape = [1] * (rank - len(constant)) + list(constant)
    if _is_bias(call, constant):
        size = max(shape)
        shape = [1] * rank
        shape[-1 if call.tensors[0].shape[-1] == size else 1] = size
    shape.insert(output.axes.index("D"), 1)
    is_aligned = [1] * (rank + 1 - len(constant)) + list(constant) == shape
    return constant if is_aligned else tuple(shape)


def _is_bias(call: LayerCall, constant: Sizes) -> bool:
    """Return whether the 2D network adds a constant along the first or the last axis, whatever its shape.

    Keras on TensorFlow adds a second argument with values along one axis by `bias_add`, if the first has as
    many channels in the last axis, else in the first axis after the batch (keras-team/keras#20386).
    """
    tensor = call.tensors[0]
    sizes = [size for size in constant if size != 1]
    is_second = type(call.layer).__name__ == "Add" and _operands(call)[0] is tensor
    return is_second and len(sizes) == 1 and sizes[0] in (tensor.shape[1], tensor.shape[-1])


def _align_arguments(call: LayerCall, output: TensorSpec) -> dict[str, Any]:
    """Return the arguments of the call in 3D: the constants are aligned.

    The sum of a constant that lies along another axis than the channels is written with the constant first,
    which `bias_add` does not accept.
    """
    args = tuple(_align_value(call, output, value) for value in call.args)
    kwargs = {key: _align_value(call, output, value) for key, value in call.kwargs.items()}
    if "D" in output.axes and type(call.layer).__name__ == "Add":
        first, second = (*args, *kwargs.values())
        if _is_constant(second) and not _is_along_channels(call.spec, np.shape(second)):
            return {"call_args": (second, first), "call_kwargs": {}}
    return {"call_args": args, "call_kwargs": kwargs}


def _align_value(call: LayerCall, output: TensorSpec, value: Value) -> Value:
    if not _is_constant(value):
        return value
    shape = _align_constant(call, output, np.shape(value))
    if shape == np.shape(value):
        return value
    return np.reshape(value, shape) if isinstance(value, np.ndarray) else ops.reshape(value, shape)


def _is_along_channels(spec: TensorSpec, constant: Sizes) -> bool:
    """Return whether a constant is one number, or has values along several axes or the channels alone."""
    sizes = [size for size in constant if size != 1]
    return len(sizes) != 1 or (constant[-1] == sizes[0] and spec.channels == sizes[0])


def _require_constant(call: LayerCall, shape: Shape, constant: Sizes, aligned: Sizes) -> None:
    """Raise if a constant does not fit the result in 3D.

    Args:
        call: The operation where it is called.
        shape: Shape of its result.
        constant: Shape of the constant.
        aligned: Its shape in 3D.

    Raises:
        UnsupportedError: It has a value per feature of a flattened volume, or another size than the tensor.
    """
    if aligned and aligned[-1] != 1:
        require_single_features(call)
    pairs = zip(reversed(shape), reversed(aligned), strict=False)
    if any(own != 1 and size not in (None, 1, own) for size, own in pairs):
        raise UnsupportedError(
            f"its constant of shape {constant} does not fit a tensor of shape {shape}.",
            "Keep the 2D network's height and width.",
        )


def lift_reduction(call: LayerCall) -> Lifted:
    """Return the reduction of the same axes, and of depth if it reduces the whole plane.

    Raises:
        UnsupportedError: It reduces height or width alone, or features of a flattened volume.
    """
    spec, axis = call.spec, call.config.get("axis")
    labels = _reduced_labels(call)
    if "x" in spec.axes:  # no spatial axes: axis numbers are unchanged
        return keep_operation(call)
    reduces_depth = "D" in spec.axes and bool(labels & {"H", "W"})
    reduced_labels = labels | {"D"} if reduces_depth else labels
    reduced = [index for index, label in enumerate(spec.axes) if label in reduced_labels]
    shape = tuple(1 if index in reduced else size for index, size in enumerate(spec.shape))
    pooled = spec.replace(shape=shape, is_global=spec.is_global or reduces_depth)
    output = without_axes(pooled, [] if call.config.get("keepdims") else reduced, call.shapes_2d[0])
    is_single = isinstance(axis, int) and len(reduced) == 1
    is_scaled = reduces_depth and type(call.layer).__name__ in SCALED_BY_DEPTH and spec.depth != 1
    axis_3d = None if axis is None else reduced[0] if is_single else reduced
    return with_arguments(call, output, axis=axis_3d).replace(
        inexact=_describe_scale(call) if is_scaled else "",
        window=f"axes {', '.join(map(str, reduced))}",
    )


def _describe_scale(call: LayerCall) -> str:
    """Return how the result depends on the number of slices, and what does not depend on it."""
    depth = call.spec.depth
    scale = SCALED_BY_DEPTH[type(call.layer).__name__].format(depth=depth or "D")
    slices = f"{depth} slices" if depth else "D slices"
    return f"the result is that of 2D {scale}, for {slices}; ops.mean over the same axes keeps its scale"


def _reduced_labels(call: LayerCall) -> set[str]:
    """Return the letters of the axes that a reduction reduces in 2D.

    Raises:
        UnsupportedError: Height or width alone, or features of a flattened volume.
    """
    axes_2d, axis = call.spec.axes_2d, call.config.get("axis")
    labels = {axes_2d[number] for number in (range(len(axes_2d)) if axis is None else as_list(axis))}
    if "C" in labels:
        require_single_features(call)
    in_plane = set(axes_2d) & {"H", "W"}
    if "D" in call.spec.axes and labels & in_plane and not in_plane <= labels:
        raise UnsupportedError(
            f"it reduces {' and '.join(sorted(labels & in_plane))} alone; depth is ambiguous then.",
            "Reduce both spatial axes, or use a pooling layer.",
        )
    return labels


def lift_along_axis(call: LayerCall) -> Lifted:
    """Return the operation along the same axis.

    Raises:
        UnsupportedError: It acts on all axes at once, or on features of a flattened volume.
    """
    axis = call.config.get("axis")
    if axis is None:
        raise UnsupportedError("it acts on all axes at once, which would include depth.", "Name its axis.")
    require_single_features(call)
    moved = [call.spec.axis_3d(number) for number in as_list(axis)]
    output = call.spec.replace(
        shape_2d=call.shapes_2d[0], is_nonnegative=type(call.layer).__name__ == "Softmax"
    )
    return with_arguments(call, output, axis=moved[0] if isinstance(axis, int) else moved)


def lift_transpose(call: LayerCall) -> Lifted:
    """Return the same order of axes, with depth after the batch.

    Raises:
        UnsupportedError: It moves the batch axis.
    """
    if "D" not in call.spec.axes:
        return keep_operation(call)
    order_2d = call.config.get("axes") or tuple(reversed(range(len(call.spec.shape_2d))))
    order, output = transpose_axes(call, order_2d)
    return with_arguments(call, output, axes=order)


RULES_BY_NAME: Mapping[str, LiftRule] = {
    "GetItem": lift_get_item,
    "ExpandDims": lift_expand_dims,
    "Squeeze": lift_squeeze,
    "Transpose": lift_transpose,
    "Split": lift_split,
    "Reshape": lift_reshape_operation,
    "Concatenate": lift_concatenate,
    "Resize": lift_resize,
}
