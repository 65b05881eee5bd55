"""Rules for raw `keras.ops` calls, whose axes are rewritten by name."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from voxlift.models.lifting.errors import RefusedError
from voxlift.models.lifting.flow import Shape
from voxlift.models.lifting.kinds import Layer
from voxlift.models.lifting.rules.answers import refuse_repeated
from voxlift.models.lifting.rules.base import LayerCall, Lifted, LiftRule
from voxlift.models.lifting.rules.indexing import (
    lift_expand_dims,
    lift_get_item,
    lift_reshape_operation,
    lift_split,
    lift_squeeze,
)
from voxlift.models.lifting.rules.merging import check_alike, lift_concatenate, lift_joined
from voxlift.models.lifting.rules.raw import again, as_list, keep_operation, without_axes
from voxlift.models.lifting.rules.shape import transposed

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


GROWS_WITH_DEPTH = {"CountNonzero", "Logsumexp", "Nansum", "Prod", "Sum"}


ALONG_AXIS = {"Cumprod", "Cumsum", "Flip", "LogSoftmax", "Softmax", "Sort", "Normalize"}


def find_operation_rule(operation: Layer) -> LiftRule | None:  # any raw operation
    """Return the rule for a raw operation of `keras.ops`, by its class's name."""
    kind = type(operation)
    if not kind.__module__.startswith("keras.") or ".ops." not in kind.__module__:
        return None
    name = kind.__name__
    families: tuple[tuple[set[str], LiftRule], ...] = (
        (POINTWISE, lift_pointwise),
        (REDUCTIONS, lift_reduction),
        (ALONG_AXIS, lift_along_axis),
    )
    return next((rule for names, rule in families if name in names), BY_NAME.get(name))


def lift_pointwise(call: LayerCall) -> Lifted:
    """Return the same operation; constants must broadcast from the right, over the depth axis too.

    Raises:
        RefusedError: A constant has no place along depth, or the inputs do not broadcast along it.
    """
    if len(call.inputs) > 1:
        _check_broadcast(call)
    joined = lift_joined(call)
    for constant in _constants(call):
        _check_constant(call, joined.shape, constant.shape)
    name = type(call.layer).__name__
    kept = name in KEEPS_SIGN and all(flow.is_nonnegative for flow in call.inputs)
    kept = kept and all((constant >= 0).all() for constant in _constants(call))
    return again(call, joined.become(is_nonnegative=kept or name in MAKES_NONNEGATIVE))


def lift_reduction(call: LayerCall) -> Lifted:
    """Return the reduction over the same axes, and over depth where it takes all axes in the plane.

    Raises:
        RefusedError: It reduces height or width alone, or features of a flattened volume.
    """
    flow, axis = call.flow, call.config.get("axis")
    labels = _reduced_labels(call)
    if "x" in flow.axes:  # no place in space: axis numbers stay
        return keep_operation(call)
    takes_depth = "D" in flow.axes and bool(labels & {"H", "W"})
    taken = labels | {"D"} if takes_depth else labels
    reduced = [place for place, label in enumerate(flow.axes) if label in taken]
    shape = tuple(1 if place in reduced else size for place, size in enumerate(flow.shape))
    pooled = flow.become(shape=shape, is_global=flow.is_global or takes_depth)
    output = without_axes(pooled, [] if call.config.get("keepdims") else reduced, call.shapes_2d[0])
    is_single = isinstance(axis, int) and len(reduced) == 1
    grows = takes_depth and type(call.layer).__name__ in GROWS_WITH_DEPTH and flow.depth != 1
    return again(call, output, axis=None if axis is None else reduced[0] if is_single else reduced).become(
        inexact=f"it adds up {flow.depth or 'all'} slices where 2D has one" if grows else "",
        window=f"axes {', '.join(map(str, reduced))}",
    )


def _reduced_labels(call: LayerCall) -> set[str]:
    """Return the letters of the axes that a reduction takes in 2D.

    Raises:
        RefusedError: Height or width alone, or features of a flattened volume.
    """
    axes_2d, axis = call.flow.axes.replace("D", ""), call.config.get("axis")
    labels = {axes_2d[number] for number in (range(len(axes_2d)) if axis is None else as_list(axis))}
    if "C" in labels:
        refuse_repeated(call)
    in_plane = set(axes_2d) & {"H", "W"}
    if "D" in call.flow.axes and labels & in_plane and not in_plane <= labels:
        raise RefusedError(
            f"it reduces {' and '.join(sorted(labels & in_plane))} alone; depth might belong to it or not.",
            "Reduce both spatial axes, or use a pooling layer.",
        )
    return labels


def lift_along_axis(call: LayerCall) -> Lifted:
    """Return the operation along the same axis.

    Raises:
        RefusedError: It takes all axes at once, or features of a flattened volume.
    """
    axis = call.config.get("axis")
    if axis is None:
        raise RefusedError("it takes all axes at once, and depth would be one of them.", "Name its axis.")
    refuse_repeated(call)
    moved = [call.flow.axis_3d(number) for number in as_list(axis)]
    output = call.flow.become(
        shape_2d=call.shapes_2d[0], is_nonnegative=type(call.layer).__name__ == "Softmax"
    )
    return again(call, output, axis=moved[0] if isinstance(axis, int) else moved)


def lift_transposition(call: LayerCall) -> Lifted:
    """Return the same order of axes, depth behind the batch.

    Raises:
        RefusedError: It moves the batch axis.
    """
    if "D" not in call.flow.axes:
        return keep_operation(call)
    order = call.config.get("axes") or tuple(reversed(range(len(call.flow.shape_2d))))
    places, output = transposed(call, order)
    return again(call, output, axes=places)


def _constants(call: LayerCall) -> list[np.ndarray[Any, Any]]:
    values = keras.tree.flatten((call.args, dict(call.kwargs)))
    numbers = (int, float, np.ndarray, np.generic)
    return [
        np.asarray(value) for value in values if isinstance(value, numbers) and not isinstance(value, bool)
    ]


def _check_constant(call: LayerCall, shape: Shape, constant: tuple[int, ...]) -> None:
    """Refuse a constant that does not broadcast from the right as it does in 2D.

    Raises:
        RefusedError: It belongs to single features of a flattened volume, to depth, or to another size.
    """
    if constant and constant[-1] != 1:
        refuse_repeated(call)
    if "D" in call.flow.axes and len(constant) > 3 and constant[0] != 1:
        raise RefusedError(f"its constant of shape {constant} has no place along depth.")
    pairs = zip(reversed(shape), reversed(constant), strict=False)
    if any(own != 1 and size not in (None, 1, own) for size, own in pairs):
        raise RefusedError(
            f"its constant of shape {constant} does not fit a tensor of shape {shape}.",
            "Keep the 2D network's height and width.",
        )


def _check_broadcast(call: LayerCall) -> None:
    check_alike(call.inputs)
    if "D" in "".join(flow.axes for flow in call.inputs) and any(
        "D" not in flow.axes for flow in call.inputs
    ):
        raise RefusedError(
            f"tensors with axes {', '.join(flow.axes for flow in call.inputs)} do not broadcast along depth.",
            "Pool with keepdims=True, or reshape to (1, 1, C) first.",
        )


BY_NAME: Mapping[str, LiftRule] = {
    "GetItem": lift_get_item,
    "ExpandDims": lift_expand_dims,
    "Squeeze": lift_squeeze,
    "Transpose": lift_transposition,
    "Split": lift_split,
    "Reshape": lift_reshape_operation,
    "Concatenate": lift_concatenate,
}
