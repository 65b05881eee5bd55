"""Convolution arithmetic: sizes, padding and crops, for sizes that are numbers or, in a graph, tensors."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from keras import ops

from voxlift.models.backend import Tensor


def standardize_triple(value: int | Sequence[int], name: str) -> tuple[int, int, int]:
    """Return a positive integer for each of depth, height and width.

    Args:
        value: One integer for all three, or three.
        name: Of the setting, for the message.

    Raises:
        ValueError: The value is neither one positive integer nor three.
    """
    depth, height, width = standardize_tuple(value, 3, name)
    return depth, height, width


def standardize_tuple(value: int | Sequence[int], count: int, name: str) -> tuple[int, ...]:
    """Return a tuple of `count` positive integers.

    Args:
        value: One integer for all, or `count` integers.
        count: Length of the tuple.
        name: Of the setting, for the message.

    Raises:
        ValueError: There is another number of values, or a value below 1.
    """
    items = value if isinstance(value, Sequence) else (value,) * count
    values = tuple(operator.index(item) for item in items)
    if len(values) != count or min(values) < 1:
        raise ValueError(f"Expected one positive integer or {count} of them for {name}, received {value!r}.")
    return values


def compute_output_size(size: Tensor, *, kernel: int, stride: int, dilation: int, padding: str) -> Tensor:
    """Return the size of a convolution's output along an axis, as Keras and TensorFlow define it.

    Args:
        size: Voxels along the axis: a number, a tensor in a graph, or None where unknown.
        kernel: Size of the kernel, in taps.
        stride: Voxels from output to output.
        dilation: Voxels from tap to tap.
        padding: `valid` or `same`.

    Returns:
        The number of outputs, not positive where the kernel does not fit; None where the size is unknown.
    """
    if size is None:
        return None
    if padding == "same":
        return (size + stride - 1) // stride
    return (size - (kernel - 1) * dilation - 1) // stride + 1


def compute_padding_before(size: Tensor, *, kernel: int, stride: int, dilation: int) -> Tensor:
    """Return how many voxels `same` padding adds before the first one along an axis.

    Args:
        size: Voxels along the axis: a number, or a tensor in a graph.
        kernel: Size of the kernel, in taps.
        stride: Voxels from output to output.
        dilation: Voxels from tap to tap.
    """
    extent = (kernel - 1) * dilation + 1
    if stride == 1:
        return (extent - 1) // 2
    outputs = (size + stride - 1) // stride
    return _at_least_zero((outputs - 1) * stride + extent - size) // 2


def is_plain(layer: Any) -> bool:  # noqa: ANN401 - Keras ships no types
    """Return whether a convolution has one group, no dilation, and channels last."""
    return layer.groups == 1 and set(layer.dilation_rate) == {1} and layer.data_format == "channels_last"


def pad_for_windows(
    inputs: Tensor, *, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], padding: str
) -> tuple[Tensor, list[list[slice]]]:
    """Return padded inputs, and per spatial axis the voxels that each tap of a kernel reads, as slices.

    Args:
        inputs: Tensor [B, D, H, W, C] of known sizes.
        sizes: Of the convolution's output, in voxels along depth, height and width.
        kernel: Taps along depth, height and width.
        strides: Voxels from output to output.
        padding: `valid` or `same`.
    """
    amounts, spans = [], []
    for size, outputs, taps, stride in zip(inputs.shape[1:4], sizes, kernel, strides, strict=True):
        before = 0
        if padding == "same":
            before = compute_padding_before(size, kernel=taps, stride=stride, dilation=1)
        extent = (outputs - 1) * stride + 1
        amounts.append((before, max(extent + taps - 1 - size - before, 0)))
        spans.append([slice(tap, tap + extent, stride) for tap in range(taps)])
    return ops.pad(inputs, [(0, 0), *amounts, (0, 0)]), spans


def crop_or_pad(inputs: Tensor, spans: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the voxels from start to stop along each spatial axis, with zeros outside the input.

    Args:
        inputs: Tensor [B, ..., C].
        spans: Start (may be negative) and stop (may exceed the size) per spatial axis, in voxels.
    """
    shape = ops.shape(inputs)
    sizes = shape[1:-1]
    padding = [(_at_least_zero(-a), _at_least_zero(b - n)) for (a, b), n in zip(spans, sizes, strict=True)]
    starts = [_at_least_zero(a) for a, _ in spans]  # a negative start is 0 after padding
    stops = [start + b - a for start, (a, b) in zip(starts, spans, strict=True)]
    if any(not _is_number(amount, 0) for pair in padding for amount in pair):
        inputs = ops.pad(inputs, [(0, 0), *padding, (0, 0)])
    is_whole = all(
        _is_number(start, 0) and _is_number(stop, size)
        for start, (_, stop), size in zip(starts, spans, sizes, strict=True)
    )
    if is_whole:
        return inputs
    return inputs[(slice(None), *(slice(a, b) for a, b in zip(starts, stops, strict=True)))]


def _at_least_zero(value: Tensor) -> Tensor:
    return max(value, 0) if isinstance(value, int) else ops.maximum(value, 0)


def _is_number(value: Tensor, number: Tensor) -> bool:
    """Return whether both are known numbers, not tensors in a graph, and equal."""
    return isinstance(value, int) and isinstance(number, int) and value == number
