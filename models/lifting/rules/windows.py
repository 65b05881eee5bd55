"""Arithmetic of kernels and pooling windows: output sizes, padding, taps along depth."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from voxlift.models.lifting.depth import DepthRule
from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.rules.base import LayerCall
from voxlift.models.lifting.types import TensorSpec, Value

# Axes in 3D of the axes of a 2D weight: a kernel [kh, kw, in, out], the same with one group per channel
# [kh, kw, 1, channels * multiplier] as a depthwise kernel [kd, kh, kw, channels, multiplier], and slopes
# [H, W, C].
KERNEL_AXES = ((1,), (2,), (3,), (4,))
GROUPED_AXES = ((1,), (2,), (), (3, 4))
SLOPE_AXES = ((1,), (2,), (3,))


def window_output(
    size: int | None, window: int, *, stride: int, padding: str, dilation: int = 1
) -> int | None:
    """Return the number of window positions along an axis; 0 or less if the window does not fit.

    >>> window_output(8, 3, stride=2, padding="same"), window_output(8, 3, stride=2, padding="valid")
    (4, 3)

    Args:
        size: Positions along the axis, None if unknown.
        window: Taps.
        stride: Positions from window to window.
        padding: `same` or `valid`.
        dilation: Positions from tap to tap.
    """
    if size is None:
        return None
    if padding == "same":
        return math.ceil(size / stride)
    return (size - dilated(window, dilation)) // stride + 1


def transposed_output(
    size: int | None, window: int, *, stride: int, padding: str, dilation: int = 1, extra: int | None = None
) -> int | None:
    """Return the number of output positions of a transposed convolution along an axis.

    Args:
        size: Positions along the axis, None if unknown.
        window: Taps.
        stride: Output positions from one input's taps to the next one's.
        padding: `same` or `valid`.
        dilation: Positions from tap to tap.
        extra: The `output_padding` of Keras, None if it is not given.
    """
    if size is None:
        return None
    reach = dilated(window, dilation)
    if extra is not None:
        lost = 2 * (reach // 2) if padding == "same" else 0
        return (size - 1) * stride + reach - lost + extra
    return size * stride + (0 if padding == "same" else max(reach - stride, 0))


def dilated(window: int, dilation: int) -> int:
    """Return the number of positions that a dilated window spans.

    Args:
        window: Taps.
        dilation: Positions from tap to tap.
    """
    return (window - 1) * dilation + 1


def same_padding(size: int | None, window: int, *, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return the zeros (front, back) of SAME padding; an unknown size counts as a multiple of the stride.

    Args:
        size: Positions along the axis, None if unknown.
        window: Taps.
        stride: Positions from window to window.
        dilation: Positions from tap to tap.
    """
    reach = dilated(window, dilation)
    total = reach - stride if size is None else (math.ceil(size / stride) - 1) * stride + reach - size
    return split_padding(max(total, 0))


def split_padding(total: int) -> tuple[int, int]:
    """Return a number of slices split over front and back, the smaller half at the front."""
    return total // 2, total - total // 2


def is_tap_inside(  # the seven numbers that place a window
    size: int | None, front: int, back: int, *, window: int, tap: int, stride: int, dilation: int = 1
) -> bool:
    """Return whether one tap of a `valid` window over a padded axis is never applied to padding.

    Args:
        size: Slices without padding, None if unknown.
        front: Slices of zeros at the front.
        back: Slices of zeros at the back.
        window: Taps.
        tap: Index of the tap.
        stride: Slices from window to window.
        dilation: Slices from tap to tap.
    """
    if size is None:
        return tap * dilation >= front
    positions = (size + front + back - dilated(window, dilation)) // stride + 1
    first = tap * dilation - front
    return first >= 0 and first + (positions - 1) * stride < size


def depth_taps(config: Mapping[str, Any], rule: DepthRule) -> tuple[int, int]:
    """Return a convolution's taps and dilation along depth.

    Args:
        config: The 2D layer's configuration.
        rule: How its depth follows its height.
    """
    dilation = pair(config["dilation_rate"])[0]
    taps = odd_if_dilated(rule.kernel_for(config["kernel_size"][0]), dilation)
    return taps, dilation if taps > 1 else 1


def odd_if_dilated(taps: int, dilation: int) -> int:
    """Return the taps, plus one if a dilated kernel would have no tap at the output position.

    Args:
        taps: Taps along depth.
        dilation: Slices from tap to tap.
    """
    return taps + 1 if dilation > 1 and taps % 2 == 0 else taps


def depth_upsampling(spec: TensorSpec, wanted: int, height: int) -> int:
    """Return the upsampling factor along depth: an axis that was not downsampled is not upsampled either.

    Then the decoder of an anisotropic network has the depths of its encoder. A globally pooled slice stays
    a single slice.

    Args:
        spec: The tensor that is upsampled.
        wanted: The factor of the depth policy.
        height: The factor along height.
    """
    if spec.is_global:
        return 1
    return wanted if spec.downsampling[0] >= wanted or spec.downsampling[1] < height else 1


def require_stride_or_dilation(changes: Mapping[str, Any]) -> None:
    """Raise if a layer has both strides and dilation, which Keras does not support in 3D.

    Args:
        changes: With `strides` and `dilation_rate`, each for depth, height and width.

    Raises:
        UnsupportedError: Both are above 1.
    """
    if max(changes["strides"]) > 1 and max(changes["dilation_rate"]) > 1:
        raise UnsupportedError(
            f"strides {changes['strides']} cannot be combined with dilation {changes['dilation_rate']}.",
            "Give this layer the depth stride 1.",
        )


def inflation_scheme(call: LayerCall) -> str:
    """Return "mean", or "centre" for all other schemes; a layer without three views uses it under "acs"."""
    return "mean" if call.scheme == "mean" else "centre"


def move_weight_axes(
    config: Mapping[str, Any], weight: str, moved: Sequence[tuple[int, ...]] = KERNEL_AXES
) -> dict[str, Any]:
    """Return the regularizer and constraint of a weight with the axes that it has in 3D.

    Args:
        config: The layer's configuration, with the axes of the 2D weight.
        weight: Prefix of the settings, such as `kernel`.
        moved: For each axis of the 2D weight, its axes in 3D; depth is axis 0.
    """
    keys = (f"{weight}_regularizer", f"{weight}_constraint")
    return {key: _move_axes(config[key], moved) for key in keys if key in config}


def _move_axes(setting: Value, moved: Sequence[tuple[int, ...]]) -> Value:
    """Return a serialised regularizer or constraint; one that acts on the whole plane acts on depth too."""
    options: Value = setting.get("config") if isinstance(setting, dict) else None
    axes = options.get("axis") if isinstance(options, dict) else None
    axes = list(axes) if isinstance(axes, list | tuple) else [axes]
    if not all(isinstance(axis, int) for axis in axes):
        return setting  # no axes, or all of them
    counted = {axis % len(moved) for axis in axes}
    depth = {0} if {0, 1} <= counted else set()
    axes_3d = sorted(depth.union(*(moved[axis] for axis in counted)))
    return {**setting, "config": {**options, "axis": axes_3d}}


def downsampled(spec: TensorSpec, depth: float, height: float) -> tuple[float, float]:
    """Return the downsampling of (depth, height) after a layer.

    Args:
        spec: The tensor that the layer reads.
        depth: Stride along depth; below 1 for upsampling.
        height: Stride along height; below 1 for upsampling.
    """
    return spec.downsampling[0] * depth, spec.downsampling[1] * height


def describe_kernel(changes: Mapping[str, Any], padding: str) -> str:
    """Return a kernel, its stride, dilation and padding as printed in the plan.

    Args:
        changes: With `kernel_size`, `strides` and `dilation_rate`.
        padding: `same` or `valid`.
    """
    text = times(changes["kernel_size"])
    if set(changes["strides"]) != {1}:
        text += f" /{times(changes['strides'])}"
    if set(changes["dilation_rate"]) != {1}:
        text += f" d{times(changes['dilation_rate'])}"
    return f"{text} {padding}"


def times(sizes: Value) -> str:
    """Return sizes joined by "x".

    >>> times((3, 3, 1))
    '3x3x1'
    """
    return "x".join(map(str, sizes))


def pair(value: Value) -> tuple[int, int]:
    """Return (height, width) of a setting that may be a single number."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
