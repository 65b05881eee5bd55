"""Weights in, weights out: how a 2D kernel becomes a 3D one. Plain numpy, no Keras."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SCHEMES = ("centre", "mean", "acs", "random")


def centre_tap(size: int) -> int:
    """Return the tap of a kernel that meets the output position under SAME padding.

    >>> [centre_tap(size) for size in (1, 2, 3, 4, 7)]
    [0, 0, 1, 1, 3]
    """
    return (size - 1) // 2


def inflate_centre(kernel: Array, depth: int) -> Array:
    """Return a kernel [depth, ...] that holds the 2D kernel at its centre tap and zeros elsewhere.

    On a volume that is constant along depth it gives exactly what the 2D kernel gives on a slice.

    Args:
        kernel: The 2D kernel [kh, kw, ...].
        depth: Taps along depth.
    """
    inflated = np.zeros((depth, *kernel.shape), kernel.dtype)
    inflated[centre_tap(depth)] = kernel
    return inflated


def inflate_mean(kernel: Array, depth: int) -> Array:
    """Return a kernel [depth, ...] whose taps are all equal and sum to the 2D kernel.

    Args:
        kernel: The 2D kernel [kh, kw, ...].
        depth: Taps along depth.

    Source: Carreira and Zisserman 2017, arXiv 1705.07750.
    """
    return _scaled(np.broadcast_to(kernel, (depth, *kernel.shape)), 1 / depth)


def inflate(kernel: Array, depth: int, scheme: str) -> Array:
    """Return a 2D kernel [kh, kw, ...] inflated to [depth, kh, kw, ...].

    Args:
        kernel: The 2D kernel, spatial axes first.
        depth: Taps along depth.
        scheme: "centre" or "mean".
    """
    return inflate_mean(kernel, depth) if scheme == "mean" else inflate_centre(kernel, depth)


def inflate_transposed(kernel: Array, depth: int, scheme: str, *, stride: int) -> Array:
    """Return a transposed convolution's kernel [kh, kw, out, in] inflated to [depth, kh, kw, out, in].

    Every output slice is reached by depth/stride taps, so one centre tap would leave gaps. "centre" puts
    the kernel on `stride` consecutive taps: each output slice then meets it exactly once. "mean" puts
    kernel * stride / depth on all taps.

    Args:
        kernel: The 2D kernel.
        depth: Taps along depth, at least `stride`.
        scheme: "centre" or "mean".
        stride: Stride along depth.
    """
    if scheme == "mean":
        return _scaled(np.broadcast_to(kernel, (depth, *kernel.shape)), stride / depth)
    first = (depth - stride) // 2
    inflated = np.zeros((depth, *kernel.shape), kernel.dtype)
    inflated[first : first + stride] = kernel
    return inflated


def tile_rows(kernel: Array, repeats: int) -> Array:
    """Return a dense kernel [repeats * features, units] that answers as in 2D where all slices are equal.

    Args:
        kernel: The 2D network's [features, units].
        repeats: Slices.
    """
    return _scaled(np.tile(kernel, (repeats, 1)), 1 / repeats)


def tile_vector(vector: Array, repeats: int) -> Array:
    """Return a per-feature vector [repeats * features] for features that a flattened volume repeats.

    Args:
        vector: One number per feature of the 2D network.
        repeats: Slices.
    """
    return np.tile(vector, repeats)


def adapt_channels(kernel: Array, channels: int, *, axis: int) -> Array:
    """Return a kernel for other input channels that keeps its response where all channels are equal.

    Its sum over the input channels is kept: RGB to grey takes the sum, other counts share it evenly.

    Args:
        kernel: Any kernel with an input channel axis.
        channels: New number of input channels.
        axis: The input channel axis.
    """
    total = kernel.sum(axis=axis, keepdims=True, dtype=np.float64)
    return np.repeat(total / channels, channels, axis=axis).astype(kernel.dtype)


def _scaled(values: Array, factor: float) -> Array:
    # Half-precision weights are scaled in float32, then stored as they were.
    return (values.astype(np.float32) * np.float32(factor)).astype(values.dtype)
