"""Rules for raw `keras.ops` calls that pick, part, add or take away axes."""

from collections.abc import Mapping
from typing import Any

import keras

from voxlift.models.lifting.errors import RefusedError
from voxlift.models.lifting.flow import VOLUME_AXES, Flow, Shape
from voxlift.models.lifting.kinds import Value
from voxlift.models.lifting.rules.answers import refuse_repeated
from voxlift.models.lifting.rules.base import LayerCall, Lifted
from voxlift.models.lifting.rules.raw import again, as_list, keep_operation, without_axes
from voxlift.models.lifting.rules.shape import lift_reshape


def lift_get_item(call: LayerCall) -> Lifted:
    """Return the same slice of the same axes; depth stays whole, or is thinned out where it follows height.

    Raises:
        RefusedError: It picks a single place in space, by a list, or adds an axis beside depth.
    """
    if call.flow.is_plain and _is_single_pixel(call.shapes_2d[0]):
        return _as_single_voxel(call)
    if "D" not in call.flow.axes:
        return keep_operation(call)
    by_label = _slice_by_label(call)
    output = _picked(call.flow, by_label, call.shapes_2d[0])
    key = tuple(by_label[label] for label in call.flow.axes)
    return again(call, output).become(call_args=(call.args[0], key), call_kwargs={})


def _slice_by_label(call: LayerCall) -> dict[str, Any]:
    """Return the slice, or the number, that a key gives each axis, depth's too."""
    key = call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    entries = list(key) if isinstance(key, tuple | list) else [key]
    slices = _slice_per_axis(entries, len(call.flow.shape_2d))
    by_label = dict(zip(call.flow.axes.replace("D", ""), slices, strict=True))
    if any(isinstance(by_label[label], int) for label in "BHW"):
        raise RefusedError(
            "it picks a single row, column or subject.", "Use a slice such as 0:1, or a pooling layer."
        )
    return {**by_label, "D": slice(None, None, _depth_step(call, by_label))}


def _picked(flow: Flow, by_label: Mapping[str, Any], shape_2d: Shape) -> Flow:
    sizes = [_sliced(size, by_label[label]) for size, label in zip(flow.shape, flow.axes, strict=True)]
    dropped = [place for place, label in enumerate(flow.axes) if isinstance(by_label[label], int)]
    steps = [abs(by_label[label].step or 1) for label in "DH"]
    left = flow.become(shape=tuple(sizes), is_nonnegative=flow.is_nonnegative)
    return without_axes(left, dropped, shape_2d).become(
        reduction=(flow.reduction[0] * steps[0], flow.reduction[1] * steps[1])
    )


def lift_expand_dims(call: LayerCall) -> Lifted:
    """Return a single voxel for what becomes a single pixel, else the operation on a tensor without space.

    Raises:
        RefusedError: The new axis has no place beside depth.
    """
    if call.flow.is_plain and _is_single_pixel(call.shapes_2d[0]):
        return _as_single_voxel(call)
    if call.flow.is_plain:
        return keep_operation(call)
    if call.flow.axes == "BDHW" and call.config["axis"] in (-1, 3):
        output = call.flow.become(axes=VOLUME_AXES, shape=(*call.flow.shape, 1), shape_2d=call.shapes_2d[0])
        return again(call, output, axis=-1)
    raise RefusedError(
        "a new axis has no place beside depth.", "Only a channel axis or (1, 1, C) can be made."
    )


def lift_squeeze(call: LayerCall) -> Lifted:
    """Return the channels of a single voxel, a volume without its one channel, or the operation as it is.

    Raises:
        RefusedError: The axes taken away lie beside depth.
    """
    if call.flow.is_plain:
        return keep_operation(call)
    if call.flow.is_volume and call.flow.shape[1:4] == (1, 1, 1) and len(call.shapes_2d[0]) == 2:
        return _as_vector(call)
    if call.flow.is_volume and as_list(call.config["axis"]) in ([-1], [3]):
        return again(call, without_axes(call.flow, [4], call.shapes_2d[0]), axis=-1)
    raise RefusedError("it takes away axes beside depth.", "Use a global pooling layer without keepdims.")


def lift_split(call: LayerCall) -> Lifted:
    """Return the parts along the same axis.

    Raises:
        RefusedError: It splits an axis in space, or features of a flattened volume.
    """
    refuse_repeated(call)
    flow = call.flow
    axis = flow.axis_3d(call.config.get("axis", 0))
    if "D" in flow.axes and flow.axes[axis] != "C":
        raise RefusedError("it splits an axis in space.", "Only channels can be split.")
    outputs = tuple(
        flow.become(shape=(*flow.shape[:axis], part[-1] if axis == len(flow.shape) - 1 else None,
                           *flow.shape[axis + 1 :]), shape_2d=part)
        for part in call.shapes_2d
    )  # fmt: skip
    return again(call, outputs[0], axis=axis).become(outputs=outputs)


def lift_reshape_operation(call: LayerCall) -> Lifted:
    """Return Reshape by the rule of the layer of that name.

    Raises:
        RefusedError: As `lift_reshape`.
    """
    target = tuple(call.config["newshape"])[1:]
    lifted = lift_reshape(_with(call, config={**call.config, "target_shape": target}))
    config = {"name": call.layer.name, "target_shape": lifted.config["target_shape"]}
    return lifted.become(
        layer_class=keras.layers.Reshape, config=config, call_args=(call.args[0],), call_kwargs={}
    )


def _depth_step(call: LayerCall, by_label: Mapping[str, Any]) -> int | None:
    """Return the step along depth: height's, where the plane is thinned out; turned around it stays whole."""
    steps = {entry.step or 1 for label, entry in by_label.items() if label in "HW"}
    follows = len(steps) == 1 and min(steps) > 1 and call.rule.stride == "height"
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


def _with(call: LayerCall, **changes: Value) -> LayerCall:  # any field
    return LayerCall(**{**vars(call), **changes})
