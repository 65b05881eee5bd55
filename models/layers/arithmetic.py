"""The arithmetic of strided windows, for sizes known as numbers or, in a graph, as tensors."""

import operator
from collections.abc import Sequence

from keras import ops

from voxlift.models.backend import Tensor


def triple(value: int | Sequence[int], name: str) -> tuple[int, int, int]:
    """Return a positive setting per depth, height and width.

    Args:
        value: One integer, or one per depth, height and width.
        name: Of the setting, for the message.

    Raises:
        ValueError: Neither one positive integer nor three.
    """
    depth, height, width = positive_integers(value, 3, name)
    return depth, height, width


def positive_integers(value: int | Sequence[int], count: int, name: str) -> tuple[int, ...]:
    """Return `count` positive integers; one integer stands for all of them.

    Args:
        value: One integer, or `count` of them.
        count: How many.
        name: Of the setting, for the message.

    Raises:
        ValueError: Another number of values, or values below 1.
    """
    items = value if isinstance(value, Sequence) else (value,) * count
    values = tuple(operator.index(item) for item in items)
    if len(values) != count or min(values) < 1:
        raise ValueError(f"Expected one positive integer or {count} of them for {name}, received {value!r}.")
    return values


def output_size(size: Tensor, *, kernel: int, stride: int, dilation: int, padding: str) -> Tensor:
    """Return how many windows fit along an axis, by the rule that Keras and TensorFlow share.

    Args:
        size: Voxels along the axis: a number, a tensor in a graph, or None where unknown.
        kernel: Taps.
        stride: Voxels from window to window.
        dilation: Voxels from tap to tap.
        padding: `valid` (windows inside only) or `same` (a window for every `stride` voxels).

    Returns:
        The number of windows, not positive where the kernel does not fit; None where the size is unknown.
    """
    if size is None:
        return None
    if padding == "same":
        return (size + stride - 1) // stride
    return (size - (kernel - 1) * dilation - 1) // stride + 1


def same_front(size: Tensor, *, kernel: int, stride: int, dilation: int) -> Tensor:
    """Return the voxels that `same` padding adds before an axis; the rest goes behind it.

    Args:
        size: Voxels along the axis: a number, or a tensor in a graph.
        kernel: Taps.
        stride: Voxels from window to window.
        dilation: Voxels from tap to tap.
    """
    reach = (kernel - 1) * dilation + 1
    if stride == 1:
        return (reach - 1) // 2
    windows = (size + stride - 1) // stride
    return _at_least_zero((windows - 1) * stride + reach - size) // 2


def window(inputs: Tensor, spans: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the voxels from start to stop along each spatial axis, with zeros outside the input.

    Args:
        inputs: Tensor [B, ..., C].
        spans: Start (may be negative) and stop (may lie beyond the end) per spatial axis, in voxels.
    """
    shape = ops.shape(inputs)
    sizes = shape[1:-1]
    padding = [(_at_least_zero(-a), _at_least_zero(b - n)) for (a, b), n in zip(spans, sizes, strict=True)]
    begins = [_at_least_zero(a) for a, _ in spans]
    # A start before the input has moved to 0 by the padding, so every kept range begins at its crop.
    ends = [begin + b - a for begin, (a, b) in zip(begins, spans, strict=True)]
    if any(not _is_zero(amount) for pair in padding for amount in pair):
        inputs = ops.pad(inputs, [(0, 0), *padding, (0, 0)])
    if all(_is_zero(a) for a in begins) and all(_is(b, n) for (_, b), n in zip(spans, sizes, strict=True)):
        return inputs
    return inputs[(slice(None), *(slice(a, b) for a, b in zip(begins, ends, strict=True)))]


def _at_least_zero(value: Tensor) -> Tensor:
    return max(value, 0) if isinstance(value, int) else ops.maximum(value, 0)


def _is_zero(value: Tensor) -> bool:
    return _is(value, 0)


def _is(value: Tensor, other: Tensor) -> bool:
    return isinstance(value, int) and isinstance(other, int) and value == other
