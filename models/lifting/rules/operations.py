"""Rules for raw `keras.ops` calls, whose axes are rewritten by name."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from models.lifting.errors import RefusedError
from models.lifting.flow import VOLUME_AXES, Flow, Shape
from models.lifting.kinds import Layer, Value
from models.lifting.rules.base import LayerCall, Lifted, LiftRule
from models.lifting.rules.merging import check_alike, lift_concatenate, lift_joined
from models.lifting.rules.shape import lift_reshape, transposed

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
    """Return the same operation; constants must broadcast from the right, over the depth axis too."""
    for constant in _constants(call):
        if "D" in call.flow.axes and constant.ndim > 3 and constant.shape[0] != 1:
            raise RefusedError(f"its constant of shape {constant.shape} has no place along depth.")
    if len(call.inputs) > 1:
        _check_broadcast(call)
    joined = lift_joined(call)
    name = type(call.layer).__name__
    kept = name in KEEPS_SIGN and all(flow.is_nonnegative for flow in call.inputs)
    kept = kept and all((constant >= 0).all() for constant in _constants(call))
    return _again(call, joined.become(is_nonnegative=kept or name in MAKES_NONNEGATIVE))


def lift_reduction(call: LayerCall) -> Lifted:
    """Return the reduction over the same axes, and over depth where it takes all axes in the plane."""
    flow, axes_2d = call.flow, call.flow.axes.replace("D", "")
    axis = call.config.get("axis")
    numbers = range(len(flow.shape_2d)) if axis is None else _as_list(axis)
    labels = {axes_2d[number] for number in numbers}
    in_plane = set(axes_2d) & {"H", "W"}
    if "D" in flow.axes and labels & in_plane and not in_plane <= labels:
        raise RefusedError(
            f"it reduces {' and '.join(sorted(labels & in_plane))} alone; depth might belong to it or not.",
            "Reduce both spatial axes, or use a pooling layer.",
        )
    if "x" in axes_2d:  # no place in space: axis numbers stay
        return keep_operation(call)
    takes_depth = "D" in flow.axes and bool(labels & in_plane)
    reduced = [
        index for index, label in enumerate(flow.axes) if label in labels or (label == "D" and takes_depth)
    ]
    keepdims = bool(call.config.get("keepdims"))
    shape = tuple(1 if index in reduced else size for index, size in enumerate(flow.shape))
    pooled = flow.become(shape=shape, is_global=flow.is_global or takes_depth)
    output = _without_axes(pooled, [] if keepdims else reduced, call.shapes_2d[0])
    grows = takes_depth and type(call.layer).__name__ in GROWS_WITH_DEPTH and flow.depth != 1
    new_axis = (
        None if axis is None else reduced[0] if isinstance(axis, int) and len(reduced) == 1 else reduced
    )
    return _again(call, output, axis=new_axis).become(
        inexact=f"it adds up {flow.depth or 'all'} slices where 2D has one" if grows else "",
        window=f"axes {', '.join(map(str, reduced))}",
    )


def lift_along_axis(call: LayerCall) -> Lifted:
    """Return the operation along the same axis."""
    axis = call.config.get("axis")
    if axis is None:
        raise RefusedError("it takes all axes at once, and depth would be one of them.", "Name its axis.")
    moved = [call.flow.axis_3d(number) for number in _as_list(axis)]
    output = call.flow.become(
        shape_2d=call.shapes_2d[0], is_nonnegative=type(call.layer).__name__ == "Softmax"
    )
    return _again(call, output, axis=moved[0] if isinstance(axis, int) else moved)


def lift_get_item(call: LayerCall) -> Lifted:
    """Return the same slice of the same axes; depth stays whole.

    Or is thinned out as height is where it follows height.
    """
    key = call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    entries = list(key) if isinstance(key, tuple | list) else [key]
    if call.flow.is_plain and _is_single_pixel(call.shapes_2d[0]):
        return _as_single_voxel(call)
    if "D" not in call.flow.axes:
        return keep_operation(call)
    slices = _slice_per_axis(entries, len(call.flow.shape_2d))
    by_label = dict(zip(call.flow.axes.replace("D", ""), slices, strict=True))
    if any(isinstance(by_label[label], int) for label in "BHW"):
        raise RefusedError(
            "it picks a single row, column or subject.", "Use a slice such as 0:1, or a pooling layer."
        )
    step = _depth_step(call, by_label)
    by_label["D"] = slice(None, None, step)
    sizes = [
        _sliced(size, by_label[label]) for size, label in zip(call.flow.shape, call.flow.axes, strict=True)
    ]
    dropped = [index for index, label in enumerate(call.flow.axes) if isinstance(by_label[label], int)]
    flow = call.flow.become(shape=tuple(sizes), is_nonnegative=call.flow.is_nonnegative)
    height = getattr(by_label["H"], "step", None) or 1
    output = _without_axes(flow, dropped, call.shapes_2d[0]).become(
        reduction=(flow.reduction[0] * (step or 1), flow.reduction[1] * height)
    )
    lifted = _again(call, output)
    return lifted.become(
        call_args=(call.args[0], tuple(by_label[label] for label in call.flow.axes)), call_kwargs={}
    )


def lift_expand_dims(call: LayerCall) -> Lifted:
    """Return a single voxel for what becomes a single pixel, else the operation on a tensor without space."""
    if call.flow.is_plain and _is_single_pixel(call.shapes_2d[0]):
        return _as_single_voxel(call)
    if call.flow.is_plain:
        return keep_operation(call)
    if call.flow.axes == "BDHW" and call.config["axis"] in (-1, 3):
        output = call.flow.become(axes=VOLUME_AXES, shape=(*call.flow.shape, 1), shape_2d=call.shapes_2d[0])
        return _again(call, output, axis=-1)
    raise RefusedError(
        "a new axis has no place beside depth.", "Only a channel axis or (1, 1, C) can be made."
    )


def lift_squeeze(call: LayerCall) -> Lifted:
    """Return the channels of a single voxel, else the operation on a tensor without space."""
    if call.flow.is_plain:
        return keep_operation(call)
    if call.flow.is_volume and call.flow.shape[1:4] == (1, 1, 1) and len(call.shapes_2d[0]) == 2:
        return _as_vector(call)
    raise RefusedError("it takes away axes beside depth.", "Use a global pooling layer without keepdims.")


def lift_transposition(call: LayerCall) -> Lifted:
    """Return the same order of axes, depth behind the batch."""
    if "D" not in call.flow.axes:
        return keep_operation(call)
    order = call.config.get("axes") or tuple(reversed(range(len(call.flow.shape_2d))))
    places, output = transposed(call, order)
    return _again(call, output, axes=places)


def lift_split(call: LayerCall) -> Lifted:
    """Return the parts along the same axis."""
    flow = call.flow
    axis = flow.axis_3d(call.config.get("axis", 0))
    if "D" in flow.axes and flow.axes[axis] != "C":
        raise RefusedError("it splits an axis in space.", "Only channels can be split.")
    outputs = tuple(
        flow.become(shape=(*flow.shape[:axis], part[-1] if axis == len(flow.shape) - 1 else None,
                           *flow.shape[axis + 1 :]), shape_2d=part)
        for part in call.shapes_2d
    )  # fmt: skip
    return _again(call, outputs[0], axis=axis).become(outputs=outputs)


def lift_reshape_operation(call: LayerCall) -> Lifted:
    """Return Reshape by the rule of the layer of that name."""
    target = tuple(call.config["newshape"])[1:]
    lifted = lift_reshape(_with(call, config={**call.config, "target_shape": target}))
    config = {"name": call.layer.name, "target_shape": lifted.config["target_shape"]}
    return lifted.become(
        layer_class=keras.layers.Reshape, config=config, call_args=(call.args[0],), call_kwargs={}
    )


def keep_operation(call: LayerCall) -> Lifted:
    """Return an operation as it is, for tensors without a place in space."""
    outputs = tuple(Flow(_plain_axes(shape), shape, shape) for shape in call.shapes_2d)
    return Lifted(type(call.layer), call.config, outputs)


def _again(call: LayerCall, output: Flow, **changes: Value) -> Lifted:  # arguments of any operation
    return Lifted(type(call.layer), {**call.config, **changes}, (output,))


def _constants(call: LayerCall) -> list[np.ndarray[Any, Any]]:
    values = keras.tree.flatten((call.args, dict(call.kwargs)))
    numbers = (int, float, np.ndarray, np.generic)
    return [
        np.asarray(value) for value in values if isinstance(value, numbers) and not isinstance(value, bool)
    ]


def _check_broadcast(call: LayerCall) -> None:
    check_alike(call.inputs)
    if "D" in "".join(flow.axes for flow in call.inputs) and any(
        "D" not in flow.axes for flow in call.inputs
    ):
        raise RefusedError(
            f"tensors with axes {', '.join(flow.axes for flow in call.inputs)} do not broadcast along depth.",
            "Pool with keepdims=True, or reshape to (1, 1, C) first.",
        )


def _depth_step(call: LayerCall, by_label: Mapping[str, Any]) -> int | None:
    steps = {entry.step for label, entry in by_label.items() if label in "HW"}
    follows = len(steps) == 1 and call.rule.stride == "height"
    return steps.pop() if follows else None


def _slice_per_axis(entries: list[Any], rank: int) -> list[Any]:
    if any(entry is None for entry in entries):
        raise RefusedError("it adds an axis beside depth.", "Use a Reshape to (1, 1, C) on a pooled vector.")
    if not all(isinstance(entry, int | slice) or entry is Ellipsis for entry in entries):
        raise RefusedError("it picks by a list of positions.", "Use slices.")
    if Ellipsis not in entries:
        entries = [*entries, Ellipsis]
    place = entries.index(Ellipsis)
    missing = rank - len(entries) + 1
    return [*entries[:place], *[slice(None)] * missing, *entries[place + 1 :]]


def _sliced(size: int | None, entry: Any) -> int | None:  # noqa: ANN401  # a slice or a number
    if isinstance(entry, int):
        return 1
    if entry == slice(None):
        return size
    return None if size is None else len(range(*entry.indices(size)))


def _without_axes(flow: Flow, dropped: list[int], shape_2d: Shape) -> Flow:
    kept = [index for index in range(len(flow.axes)) if index not in dropped]
    axes = "".join(flow.axes[index] for index in kept)
    return flow.become(axes=axes, shape=tuple(flow.shape[index] for index in kept), shape_2d=shape_2d)


def _is_single_pixel(shape_2d: Shape) -> bool:
    return len(shape_2d) == 4 and shape_2d[1:3] == (1, 1)


def _as_single_voxel(call: LayerCall) -> Lifted:
    shape_2d = call.shapes_2d[0]
    output = Flow(VOLUME_AXES, (call.flow.shape[0], 1, 1, 1, shape_2d[-1]), shape_2d, is_global=True)
    return _reshaped(call, (1, 1, 1, shape_2d[-1]), output)


def _as_vector(call: LayerCall) -> Lifted:
    output = call.flow.become(
        axes="BC", shape=(call.flow.shape[0], call.flow.channels), shape_2d=call.shapes_2d[0]
    )
    return _reshaped(call, (call.flow.channels,), output)


def _reshaped(call: LayerCall, target: Shape, output: Flow) -> Lifted:
    config = {"name": call.layer.name, "target_shape": target}
    output = output.become(is_nonnegative=call.flow.is_nonnegative)
    return Lifted(keras.layers.Reshape, config, (output,), call_args=(call.args[0],), call_kwargs={})


def _plain_axes(shape: Shape) -> str:
    return "BC" if len(shape) == 2 else "B" + "x" * (len(shape) - 1)


def _as_list(axis: Any) -> list[int]:  # noqa: ANN401  # one axis or several
    return list(axis) if isinstance(axis, list | tuple) else [axis]


def _with(call: LayerCall, **changes: Value) -> LayerCall:  # any field
    return LayerCall(**{**vars(call), **changes})


BY_NAME: Mapping[str, LiftRule] = {
    "GetItem": lift_get_item,
    "ExpandDims": lift_expand_dims,
    "Squeeze": lift_squeeze,
    "Transpose": lift_transposition,
    "Split": lift_split,
    "Reshape": lift_reshape_operation,
    "Concatenate": lift_concatenate,
}
