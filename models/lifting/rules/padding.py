"""Rules for padding and cropping; the depth padding is determined by the layers that read it."""

from typing import Any

import keras

from voxlift.models.lifting.rules.base import Consumer, LayerCall, Lifted
from voxlift.models.lifting.rules.results import spatial_output
from voxlift.models.lifting.rules.windows import depth_taps, dilated, same_padding, split_padding
from voxlift.models.lifting.types import TensorSpec

Pads = tuple[int, int]  # front and back, or top and bottom, or left and right


def lift_zero_padding(call: LayerCall) -> Lifted:
    """Return ZeroPadding3D; along depth it adds what its consumers need to follow the depth policy."""
    spec = call.require_volume()
    rows, columns = call.config["padding"]
    padding = (_depth_padding(call), tuple(rows), tuple(columns))
    is_read, front, back = bool(call.consumers), *padding[0]
    # Without a window that reads them as padding, slices of zeros count as slices of the volume.
    added = (spec.depth_padding[0] + front, spec.depth_padding[1] + back) if is_read else (0, 0)
    output = spatial_output(call, _add_to_sides(spec, padding, sign=1))
    return Lifted(
        keras.layers.ZeroPadding3D,
        {**call.config, "padding": padding},
        (output.replace(depth_padding=added, is_nonnegative=spec.is_nonnegative),),
        window=", ".join(f"{first}+{last}" for first, last in padding),
        inexact="slices of zeros stay in its output" if front + back and not is_read else "",
    )


def lift_cropping(call: LayerCall) -> Lifted:
    """Return Cropping3D, which crops no slices."""
    spec = call.require_volume()
    rows, columns = call.config["cropping"]
    cropping = ((0, 0), tuple(rows), tuple(columns))
    output = spatial_output(call, _add_to_sides(spec, cropping, sign=-1))
    output = output.replace(is_nonnegative=spec.is_nonnegative, depth_padding=spec.depth_padding)
    return Lifted(keras.layers.Cropping3D, {**call.config, "cropping": cropping}, (output,))


def _add_to_sides(spec: TensorSpec, pads: tuple[Any, ...], *, sign: int) -> tuple[int | None, ...]:
    """Return depth, height and width of a volume after padding (sign 1) or cropping (sign -1)."""
    sides = zip(spec.shape[1:4], pads, strict=True)
    return tuple(None if size is None else size + sign * sum(pad) for size, pad in sides)


def _depth_padding(call: LayerCall) -> Pads:
    """Return the slices of zeros to add at the front and back."""
    if not call.consumers:
        rows = call.config["padding"][0]
        return tuple(rows) if call.depth_rule.stride == call.depth_rule.pool == "height" else (0, 0)
    needs = [_needed_padding(call, consumer) for consumer in call.consumers]
    # Several consumers: what all of them can use; a convolution adds the rest itself.
    return min(need[0] for need in needs), min(need[1] for need in needs)


def _needed_padding(call: LayerCall, consumer: Consumer) -> Pads:
    """Return the slices of zeros that one consumer needs along depth."""
    rows, config, rule = tuple(call.config["padding"][0]), consumer.config, consumer.depth_rule
    if consumer.is_pool:
        window, dilation = rule.pool_for(config["pool_size"][0]), 1
        stride = rule.pool_for((config["strides"] or config["pool_size"])[0])
        follows_height = rule.pool == "height"
    else:
        window, dilation = depth_taps(config, rule)
        stride = rule.stride_for(config["strides"][0])
        follows_height = rule.kernel == rule.stride == "height"
    if window == 1:
        return 0, 0
    if not consumer.is_pool and rule.keeps_depth and config["padding"] == "valid":
        return split_padding(dilated(window, dilation) - 1)
    if config["padding"] != "valid" or not follows_height:
        return rows if follows_height else (0, 0)
    if rows[0] == rows[1]:
        return rows
    # (0, 1) is SAME padding written out for an even height; depth may be odd.
    return same_padding(call.spec.depth, window, stride=stride, dilation=dilation)
