"""Inflate 2D kernels to 3D kernels, in plain numpy.

| scheme | 3D kernel | on a volume that is constant along depth |
|---|---|---|
| centre | the 2D kernel at the centre tap, zeros elsewhere | equals the 2D network exactly |
| mean | the 2D kernel / depth at every tap | equals the 2D network, except at the borders |
| acs | the 2D kernel, output channels split over three views (`layers.ACSConv3D`) | |
| random | the layer's own initialiser | |
"""

import numpy as np

from voxlift.models.lifting.types import Array

SCHEMES = ("centre", "mean", "acs", "random")


def inflate(kernel: Array, depth: int, scheme: str) -> Array:
    """Return a 2D kernel [kh, kw, ...] inflated to [depth, kh, kw, ...].

    Args:
        kernel: The 2D kernel, spatial axes first.
        depth: Taps along depth.
        scheme: "centre" or "mean".
    """
    return inflate_mean(kernel, depth) if scheme == "mean" else inflate_centre(kernel, depth)


def inflate_centre(kernel: Array, depth: int) -> Array:
    """Return a kernel [depth, ...] that contains the 2D kernel at its centre tap and zeros elsewhere.

    On a volume that is constant along depth it gives exactly what the 2D kernel gives on a slice.

    Args:
        kernel: The 2D kernel [kh, kw, ...].
        depth: Taps along depth.
    """
    inflated = np.zeros((depth, *kernel.shape), kernel.dtype)
    inflated[centre_tap(depth)] = kernel
    return inflated


def centre_tap(size: int) -> int:
    """Return the tap of a kernel that is applied to the output position under SAME padding.

    >>> [centre_tap(size) for size in (1, 2, 3, 4, 7)]
    [0, 0, 1, 1, 3]
    """
    return (size - 1) // 2


def inflate_mean(kernel: Array, depth: int) -> Array:
    """Return a kernel [depth, ...] whose taps are all equal and sum to the 2D kernel.

    Args:
        kernel: The 2D kernel [kh, kw, ...].
        depth: Taps along depth.

    Source:
        Carreira and Zisserman 2017, arXiv:1705.07750.
    """
    return _scale(np.broadcast_to(kernel, (depth, *kernel.shape)), 1 / depth)


def inflate_transposed(kernel: Array, depth: int, scheme: str, *, stride: int) -> Array:
    """Return a transposed convolution's kernel [kh, kw, out, in] inflated to [depth, kh, kw, out, in].

    Every output slice is reached by depth/stride taps, so a single centre tap would leave gaps. "centre" puts
    the kernel on `stride` consecutive taps: each output slice is reached by exactly one of them. "mean" puts
    kernel * stride / depth on all taps.

    Args:
        kernel: The 2D kernel.
        depth: Taps along depth, at least `stride`.
        scheme: "centre" or "mean".
        stride: Stride along depth.
    """
    if scheme == "mean":
        return _scale(np.broadcast_to(kernel, (depth, *kernel.shape)), stride / depth)
    first = (depth - stride) // 2
    inflated = np.zeros((depth, *kernel.shape), kernel.dtype)
    inflated[first : first + stride] = kernel
    return inflated


def tile_rows(kernel: Array, repeats: int) -> Array:
    """Return a dense kernel [repeats * features, units] that gives the 2D output if all slices are equal.

    Args:
        kernel: The 2D network's dense kernel [features, units].
        repeats: Number of slices.
    """
    return _scale(np.tile(kernel, (repeats, 1)), 1 / repeats)


def adapt_channels(kernel: Array, channels: int, *, axis: int) -> Array:
    """Return a kernel for another number of input channels, with the same response to equal channels.

    The sum over the input channels is kept: RGB to one channel takes the sum, other numbers of channels
    share it equally.

    Args:
        kernel: Any kernel with an axis of input channels.
        channels: New number of input channels.
        axis: The axis of input channels.
    """
    total = kernel.sum(axis=axis, keepdims=True, dtype=np.float64)
    return np.repeat(total / channels, channels, axis=axis).astype(kernel.dtype)


def _scale(values: Array, factor: float) -> Array:
    # Half-precision weights are scaled in float32, then stored in their own dtype.
    return (values.astype(np.float32) * np.float32(factor)).astype(values.dtype)
