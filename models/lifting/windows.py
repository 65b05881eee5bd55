"""Arithmetic of sliding windows: how many slices come out, and which ones a centre tap meets."""

import math


def window_output(
    size: int | None, window: int, *, stride: int, padding: str, dilation: int = 1
) -> int | None:
    """Return how many positions a window takes along an axis; 0 or less where it does not fit.

    >>> window_output(8, 3, stride=2, padding="same"), window_output(8, 3, stride=2, padding="valid")
    (4, 3)

    Args:
        size: Positions along the axis, None where unknown.
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
    """Return how many positions a transposed convolution gives along an axis.

    Args:
        size: Positions along the axis, None where unknown.
        window: Taps.
        stride: Output positions from one input's taps to the next one's.
        padding: `same` or `valid`.
        dilation: Positions from tap to tap.
        extra: Keras's output_padding, None where it is not given.
    """
    if size is None:
        return None
    reach = dilated(window, dilation)
    if extra is not None:
        lost = 2 * (reach // 2) if padding == "same" else 0
        return (size - 1) * stride + reach - lost + extra
    return size * stride + (0 if padding == "same" else max(reach - stride, 0))


def dilated(window: int, dilation: int) -> int:
    """Return how many positions a dilated window spans.

    Args:
        window: Taps.
        dilation: Positions from tap to tap.
    """
    return (window - 1) * dilation + 1


def same_padding(size: int | None, window: int, *, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return the zeros (front, back) of SAME padding; for an unknown size, of a multiple of the stride.

    Args:
        size: Positions along the axis, None where unknown.
        window: Taps.
        stride: Positions from window to window.
        dilation: Positions from tap to tap.
    """
    reach = dilated(window, dilation)
    total = reach - stride if size is None else (math.ceil(size / stride) - 1) * stride + reach - size
    total = max(total, 0)
    return total // 2, total - total // 2


def split_padding(total: int) -> tuple[int, int]:
    """Return a number of slices split over front and back, the smaller half in front."""
    return total // 2, total - total // 2


def taps_inside(  # the seven numbers that place a window
    size: int | None, front: int, back: int, *, window: int, tap: int, stride: int, dilation: int = 1
) -> bool:
    """Return whether one tap of a `valid` window over a padded axis meets real slices only, no zeros.

    Args:
        size: Real slices, None where unknown.
        front: Zeros in front of them.
        back: Zeros behind them.
        window: Taps.
        tap: The one that is asked about, from 0.
        stride: Slices from window to window.
        dilation: Slices from tap to tap.
    """
    if size is None:
        return tap * dilation >= front
    positions = (size + front + back - dilated(window, dilation)) // stride + 1
    first = tap * dilation - front
    return first >= 0 and first + (positions - 1) * stride < size
