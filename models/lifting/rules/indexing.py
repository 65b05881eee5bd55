"""Rules for raw `keras.ops` calls that index, split, add or remove axes."""

import math
from collections.abc import Mapping
from typing import Any

import keras

from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.rules.base import LayerCall, Lifted
from voxlift.models.lifting.rules.reshape import is_single_pixel, lift_reshape, single_voxel
from voxlift.models.lifting.rules.results import (
    as_list,
    keep_operation,
    require_single_features,
    with_arguments,
    without_axes,
)
from voxlift.models.lifting.types import VOLUME_AXES, Shape, TensorSpec


def lift_get_item(call: LayerCall) -> Lifted:
    """Return the same slicing of the same axes; depth is kept, or subsampled if it follows height.

    Raises:
        UnsupportedError: It selects a single row, column or subject, uses a list, or adds a spatial axis.
    """
    if call.spec.is_plain and is_single_pixel(call.shapes_2d[0]):
        return _as_single_voxel(call)
    if "D" not in call.spec.axes:
        return keep_operation(call)
    key_by_label = _key_by_label(call)
    key = tuple(key_by_label[label] for label in call.spec.axes)
    output = _index_spec(call.spec, key, call.shapes_2d[0])
    return with_arguments(call, output).replace(call_args=(call.args[0], key), call_kwargs={})


def _key_by_label(call: LayerCall) -> dict[str, Any]:
    """Return the slice or number for each axis, including depth."""
    key = call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    entries = list(key) if isinstance(key, tuple | list) else [key]
    slices = one_per_axis(entries, len(call.spec.shape_2d))
    by_label = dict(zip(call.spec.axes_2d, slices, strict=True))
    if any(isinstance(by_label[label], int) for label in "BHW"):
        raise UnsupportedError(
            "it selects a single row, column or subject.", "Use a slice such as 0:1, or a pooling layer."
        )
    return {**by_label, "D": slice(None, None, _depth_step(call, by_label))}


def one_per_axis(entries: list[Any], rank: int) -> list[Any]:
    """Return an index with one slice or number per axis.

    Args:
        entries: Slices, numbers, and at most one Ellipsis.
        rank: Number of axes.

    Raises:
        UnsupportedError: It adds an axis, or selects by a list.
    """
    if any(entry is None for entry in entries):
        raise UnsupportedError(
            "it adds a spatial axis.", "Use a Reshape to (1, 1, C) of a globally pooled vector."
        )
    if not all(isinstance(entry, int | slice) or entry is Ellipsis for entry in entries):
        raise UnsupportedError("it selects by a list of positions.", "Use slices.")
    if Ellipsis not in entries:
        entries = [*entries, Ellipsis]
    place = entries.index(Ellipsis)
    missing = rank - len(entries) + 1
    return [*entries[:place], *[slice(None)] * missing, *entries[place + 1 :]]


def _depth_step(call: LayerCall, by_label: Mapping[str, Any]) -> int | None:
    """Return the step along depth: that of the plane if both its axes are subsampled, else None."""
    steps = {entry.step or 1 for label, entry in by_label.items() if label in "HW"}
    follows = len(steps) == 1 and min(steps) > 1 and call.depth_rule.stride == "height"
    return steps.pop() if follows else None


def _index_spec(spec: TensorSpec, key: tuple[Any, ...], shape_2d: Shape) -> TensorSpec:
    sizes = tuple(_indexed_size(size, entry) for size, entry in zip(spec.shape, key, strict=True))
    dropped = [index for index, entry in enumerate(key) if isinstance(entry, int)]
    depth, height = (abs(key[spec.axes.index(label)].step or 1) for label in "DH")
    left = spec.replace(shape=sizes, is_nonnegative=spec.is_nonnegative)
    return without_axes(left, dropped, shape_2d).replace(
        downsampling=(spec.downsampling[0] * depth, spec.downsampling[1] * height)
    )


def _indexed_size(size: int | None, entry: int | slice) -> int | None:
    if isinstance(entry, int):
        return 1
    if entry == slice(None):
        return size
    return None if size is None else len(range(*entry.indices(size)))


def lift_expand_dims(call: LayerCall) -> Lifted:
    """Return a single voxel for a vector that becomes a single pixel, else the operation as it is.

    Raises:
        UnsupportedError: The new axis is a spatial axis.
    """
    spec = call.spec
    if spec.is_plain and is_single_pixel(call.shapes_2d[0]):
        return _as_single_voxel(call)
    if spec.is_plain:
        return keep_operation(call)
    if spec.axes == "BDHW" and call.config["axis"] in (-1, 3):
        output = spec.replace(axes=VOLUME_AXES, shape=(*spec.shape, 1), shape_2d=call.shapes_2d[0])
        return with_arguments(call, output, axis=-1)
    raise UnsupportedError(
        "it adds a spatial axis.", "Only a channel axis can be added, or (1, 1, C) made of a vector."
    )


def lift_squeeze(call: LayerCall) -> Lifted:
    """Return the vector of a single voxel, a volume without its only channel, or the operation as it is.

    Raises:
        UnsupportedError: It removes spatial axes of a volume.
    """
    spec = call.spec
    if spec.is_plain:
        return keep_operation(call)
    if spec.is_volume and spec.shape[1:4] == (1, 1, 1) and len(call.shapes_2d[0]) == 2:
        output = spec.replace(axes="BC", shape=(spec.shape[0], spec.channels), shape_2d=call.shapes_2d[0])
        return _as_reshape(call, (spec.channels,), output.replace(is_nonnegative=spec.is_nonnegative))
    if spec.is_volume and as_list(call.config["axis"]) in ([-1], [3]):
        return with_arguments(call, without_axes(spec, [4], call.shapes_2d[0]), axis=-1)
    raise UnsupportedError("it removes spatial axes.", "Use a global pooling layer without keepdims.")


def lift_split(call: LayerCall) -> Lifted:
    """Return the parts along the same axis.

    Raises:
        UnsupportedError: It splits a spatial axis, or features of a flattened volume.
    """
    require_single_features(call)
    spec = call.spec
    axis = spec.axis_3d(call.config.get("axis", 0))
    if "D" in spec.axes and spec.axes[axis] != "C":
        raise UnsupportedError("it splits a spatial axis.", "Only channels can be split.")
    is_last = axis == len(spec.shape) - 1
    outputs = tuple(
        spec.replace(
            shape=(*spec.shape[:axis], part[-1] if is_last else None, *spec.shape[axis + 1 :]), shape_2d=part
        )
        for part in call.shapes_2d
    )
    return with_arguments(call, outputs[0], axis=axis).replace(outputs=outputs)


def lift_reshape_operation(call: LayerCall) -> Lifted:
    """Return a Reshape layer, by its rule.

    Raises:
        UnsupportedError: As `lift_reshape`.
    """
    target = tuple(call.config["newshape"])[1:]
    shape_2d = _resolve_target(call, target)
    lifted = lift_reshape(call.replace(config={**call.config, "target_shape": target}, shapes_2d=(shape_2d,)))
    config = {"name": call.layer.name, "target_shape": lifted.config["target_shape"]}
    return lifted.replace(
        layer_class=keras.layers.Reshape, config=config, call_args=(call.args[0],), call_kwargs={}
    )


def _resolve_target(call: LayerCall, target: Shape) -> Shape:
    """Return the 2D shape after a reshape: with an unknown batch, Keras leaves a size of -1 unknown."""
    sizes, (batch, *_) = call.spec.shape_2d[1:], call.config["newshape"]
    if batch is not None or None in sizes or None in target or list(target).count(-1) != 1:
        return call.shapes_2d[0]
    known = math.prod(size for size in target if size is not None and size != -1)
    rest = math.prod(size or 1 for size in sizes) // max(known, 1)
    return (call.spec.shape_2d[0], *(rest if size == -1 else size for size in target))


def _as_single_voxel(call: LayerCall) -> Lifted:
    output = single_voxel(call)
    return _as_reshape(call, output.shape[1:], output)


def _as_reshape(call: LayerCall, target: Shape, output: TensorSpec) -> Lifted:
    config = {"name": call.layer.name, "target_shape": target}
    return Lifted(keras.layers.Reshape, config, (output,), call_args=(call.args[0],), call_kwargs={})
