"""Convolution of volumes with few voxels, as deep networks end: by matrix products where those are better."""

import math
from collections.abc import Callable
from itertools import product

import keras
from keras import ops

from voxlift.models.backend import Tensor, convolve_volumes, float32_filter_gradient, has_own_convolution
from voxlift.models.layers.arithmetic import same_front

FEW_POSITIONS = 8  # output voxels up to which a product beats the convolution kernel
MANY_WEIGHTS = 2**20  # from here on reading and reordering the weights is what a convolution costs
SAFE_POSITIONS = 64  # up to here the filter gradient of few slices is a product, beyond a float32 convolution


@keras.saving.register_keras_serializable(package="voxlift")
class FewPositionsConv3D(keras.layers.Conv3D):
    """`keras.layers.Conv3D` that takes other routes on TensorFlow's CPU where an output has few voxels.

    Arguments, weights and results are those of the Keras layer. With at most `FEW_POSITIONS` output voxels
    and `MANY_WEIGHTS` weights, outputs and filter gradient are matrix products of windows: the convolution's
    own filter gradient takes 47 ms for 512 to 512 channels on 2x2x2 voxels, the product 10 ms. In bfloat16 on
    few slices that gradient also reads memory that nobody wrote; there it is a product too, or computed in
    float32. Groups, dilation, other dtypes, devices and backends take the Keras path.
    """

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Return the convolution [B, D', H', W', filters], without bias and activation.

        Args:
            inputs: Tensor [B, D, H, W, C] in the compute dtype.
            kernel: Tensor [kd, kh, kw, C, filters] in the compute dtype.
        """
        is_few, is_unsafe = self._is_few(inputs), self._is_unsafe(inputs)
        if not (self.has_own_routes and (is_few or is_unsafe)):
            return super().convolution_op(inputs, kernel)
        return convolve_volumes(
            inputs,
            ops.convert_to_tensor(kernel),
            strides=self.strides,
            padding=self.padding,
            outputs_of=self._multiply if is_few else None,
            filter_gradient=self._filter_gradient(inputs),
        )

    @property
    def has_own_routes(self) -> bool:
        """Whether its settings, backend and device allow another route, so that few slices are safe."""
        is_plain = self.groups == 1 and set(self.dilation_rate) == {1} and self.data_format == "channels_last"
        return is_plain and has_own_convolution(self.compute_dtype)

    def _is_few(self, inputs: Tensor) -> bool:
        positions = self._positions(inputs)
        weights = math.prod(self.kernel_size) * inputs.shape[-1] * self.filters
        return positions is not None and positions <= FEW_POSITIONS and weights >= MANY_WEIGHTS

    def _is_unsafe(self, inputs: Tensor) -> bool:
        is_bfloat = keras.backend.standardize_dtype(inputs.dtype) == "bfloat16"
        return is_bfloat and is_shallow(inputs.shape[1], self.kernel_size[0])

    def _positions(self, inputs: Tensor) -> int | None:
        sizes = self.compute_output_shape(inputs.shape)[1:4]
        return None if None in sizes else math.prod(sizes)

    def _filter_gradient(self, inputs: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        positions = self._positions(inputs)
        if positions is not None and positions <= SAFE_POSITIONS:
            return self._multiply_gradient
        shape = (*self.kernel_size, inputs.shape[-1], self.filters)
        return lambda inputs, upstream: float32_filter_gradient(
            inputs, upstream, shape=shape, strides=self.strides, padding=self.padding
        )

    def _multiply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        rows = ops.matmul(self._windows(inputs), ops.reshape(kernel, (-1, self.filters)))
        return ops.reshape(rows, (-1, *self.compute_output_shape(inputs.shape)[1:]))

    def _multiply_gradient(self, inputs: Tensor, upstream: Tensor) -> Tensor:
        rows = ops.reshape(upstream, (-1, self.filters))
        shape = (*self.kernel_size, inputs.shape[-1], self.filters)
        return ops.reshape(ops.matmul(ops.transpose(self._windows(inputs)), rows), shape)

    def _windows(self, inputs: Tensor) -> Tensor:
        """Return one row per output voxel with the voxels under the kernel: [B * positions, taps * C]."""
        sizes = self.compute_output_shape(inputs.shape)[1:4]
        padding, spans = [], []
        axes = zip(inputs.shape[1:4], sizes, self.kernel_size, self.strides, strict=True)
        for size, windows, taps, stride in axes:
            front = 0
            if self.padding == "same":
                front = same_front(size, kernel=taps, stride=stride, dilation=1)
            reach = (windows - 1) * stride + 1
            padding.append((front, max(reach + taps - 1 - size - front, 0)))
            spans.append([slice(tap, tap + reach, stride) for tap in range(taps)])
        padded = ops.pad(inputs, [(0, 0), *padding, (0, 0)])
        columns = ops.concatenate([padded[(slice(None), *place)] for place in product(*spans)], axis=-1)
        return ops.reshape(columns, (-1, columns.shape[-1]))


def is_shallow(depth: int | None, taps: int) -> bool:
    """Return whether TensorFlow's bfloat16 filter gradient is unsafe: a kernel of `taps` over `depth` slices.

    Found by trial (2.21, AVX512-BF16): NaN after a few steps at depth 2 under a kernel of 3 and depth 4 under
    one of 5.

    Args:
        depth: Slices of the input, None where unknown.
        taps: Of the kernel along depth.
    """
    return depth is not None and 1 < depth <= taps


def takes_few_positions(
    input_size: tuple[int | None, ...], output_size: tuple[int | None, ...], kernel_shape: tuple[int, ...]
) -> bool:
    """Return whether a convolution may gain by `FewPositionsConv3D`.

    Args:
        input_size: Depth, height and width of its input; None where unknown.
        output_size: The same of its output.
        kernel_shape: Taps along depth, height and width, input and output channels.
    """
    if is_shallow(input_size[0], kernel_shape[0]):
        return True
    positions = math.prod(size if size is not None else FEW_POSITIONS + 1 for size in output_size)
    return positions <= FEW_POSITIONS and math.prod(kernel_shape) >= MANY_WEIGHTS
