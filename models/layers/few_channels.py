"""Convolution of volumes with few channels, as at the start of networks, with taps stacked into channels."""

import math
from collections.abc import Sequence

import keras
from keras import ops

from voxlift.models.backend import Tensor, prefers_stacked_taps
from voxlift.models.layers.conv_arithmetic import is_plain, pad_for_windows

FEW_CHANNELS = 4  # up to so many input channels a GPU's convolution leaves its matrix units idle
MOST_STACKED = 64  # channels up to which taps are stacked: the stack of a 7x7x7 kernel would not fit memory
CHANNEL_BLOCK = 8  # a GPU's matrix units work on blocks of so many 16-bit channels


@keras.saving.register_keras_serializable(package="voxlift")
class FewChannelsConv3D(keras.layers.Conv3D):
    """`keras.layers.Conv3D` that stacks the taps of its kernel into channels, on JAX with a GPU.

    Arguments, weights and results are those of the Keras layer. cuDNN computes a convolution of one channel
    without the matrix units: a step of the benchmark's CNN on 8 volumes of 96^3 in bfloat16 took 17.2 ms on
    an H100, more than half of it here, and takes 11.4 ms with stacked taps. Groups, dilation, more channels,
    other backends and devices use the Keras path.
    """

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Return the convolution [B, D', H', W', filters], without bias and activation.

        Args:
            inputs: Tensor [B, D, H, W, C] in the compute dtype.
            kernel: Tensor [kd, kh, kw, C, filters] in the compute dtype.
        """
        is_known = None not in inputs.shape[1:4]
        if not (is_known and is_plain(self) and benefits_from_stacked_taps(inputs.shape[-1])):
            return super().convolution_op(inputs, kernel)
        sizes = self.compute_output_shape(inputs.shape)[1:4]
        return convolve_stacked(
            inputs, ops.convert_to_tensor(kernel), sizes=sizes, strides=self.strides, padding=self.padding
        )


def benefits_from_stacked_taps(channels: int) -> bool:
    """Return whether a convolution of so many input channels is faster as `FewChannelsConv3D`."""
    return channels <= FEW_CHANNELS and prefers_stacked_taps()


def convolve_stacked(
    inputs: Tensor, kernel: Tensor, *, sizes: Sequence[int], strides: Sequence[int], padding: str
) -> Tensor:
    """Return a convolution computed with the taps of width, height and depth stacked into channels.

    Axes are stacked from the last one on while there are at most `MOST_STACKED` channels. With all three
    stacked, what remains is a matrix product.

    Args:
        inputs: Tensor [B, D, H, W, C] of known sizes.
        kernel: Tensor [kd, kh, kw, C, filters].
        sizes: Output voxels along depth, height and width.
        strides: Along depth, height and width.
        padding: `valid` or `same`.
    """
    taps, (channels, filters) = list(kernel.shape[:3]), kernel.shape[3:]
    x, spans = pad_for_windows(inputs, sizes=sizes, kernel=taps, strides=strides, padding=padding)
    strides = list(strides)
    for axis in (2, 1, 0):
        if channels * taps[axis] > MOST_STACKED:
            break
        x = ops.concatenate([x[_along(axis, span)] for span in spans[axis]], axis=-1)
        channels, taps[axis], strides[axis] = channels * taps[axis], 1, 1
    missing = -channels % CHANNEL_BLOCK
    x = ops.pad(x, [(0, 0)] * 4 + [(0, missing)])
    kernel = ops.pad(ops.reshape(kernel, (*taps, channels, filters)), [(0, 0)] * 3 + [(0, missing), (0, 0)])
    if math.prod(taps) == 1:
        return ops.matmul(x, kernel[0, 0, 0])
    return ops.conv(x, kernel, strides=tuple(strides), padding="valid", data_format="channels_last")


def _along(axis: int, span: slice) -> tuple[slice, ...]:
    """Return the index of a span of a spatial axis, counted from depth."""
    return (*[slice(None)] * (axis + 1), span)
