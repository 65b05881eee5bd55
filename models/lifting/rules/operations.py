"""Rules for raw `keras.ops` calls, whose axis numbers are mapped to 3D by name."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

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
from voxlift.models.lifting.types import Layer, Shape

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
SUMS_OVER_DEPTH = {"CountNonzero", "Logsumexp", "Nansum", "Prod", "Sum"}
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
    """Return the same operation; constants must broadcast from the right, also over the depth axis.

    Raises:
        UnsupportedError: A constant or the inputs do not broadcast along depth.
    """
    if len(call.inputs) > 1:
        _require_broadcast(call)
    output, name = broadcast_inputs(call), type(call.layer).__name__
    constants = _constants(call)
    for constant in constants:
        _require_constant(call, output.shape, constant.shape)
    nonnegative = name in MAKES_NONNEGATIVE or (
        name in KEEPS_SIGN
        and all(spec.is_nonnegative for spec in call.inputs)
        and all((constant >= 0).all() for constant in constants)
    )
    return with_arguments(call, output.replace(is_nonnegative=nonnegative))


def _require_broadcast(call: LayerCall) -> None:
    require_compatible(call.inputs)
    has_depth = ["D" in spec.axes for spec in call.inputs]
    if any(has_depth) and not all(has_depth):
        raise UnsupportedError(
            f"tensors with axes {', '.join(spec.axes for spec in call.inputs)} do not broadcast along depth.",
            "Pool with keepdims=True, or reshape to (1, 1, C) first.",
        )


def _constants(call: LayerCall) -> list[np.ndarray[Any, Any]]:
    values = keras.tree.flatten((call.args, dict(call.kwargs)))
    numbers = (int, float, np.ndarray, np.generic)
    return [
        np.asarray(value) for value in values if isinstance(value, numbers) and not isinstance(value, bool)
    ]


def _require_constant(call: LayerCall, shape: Shape, constant: tuple[int, ...]) -> None:
    """Raise if a constant of a shape does not broadcast from the right as it does in 2D.

    Raises:
        UnsupportedError: It has a value per feature of a flattened volume, an axis at the position of depth,
            or another size than the tensor.
    """
    if constant and constant[-1] != 1:
        require_single_features(call)
    if "D" in call.spec.axes and len(constant) > 3 and constant[0] != 1:
        raise UnsupportedError(f"its constant of shape {constant} cannot be broadcast along depth.")
    pairs = zip(reversed(shape), reversed(constant), strict=False)
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
    sums_depth = reduces_depth and type(call.layer).__name__ in SUMS_OVER_DEPTH and spec.depth != 1
    axis_3d = None if axis is None else reduced[0] if is_single else reduced
    return with_arguments(call, output, axis=axis_3d).replace(
        inexact=f"it sums {spec.depth or 'all'} slices, the 2D network only one" if sums_depth else "",
        window=f"axes {', '.join(map(str, reduced))}",
    )


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
