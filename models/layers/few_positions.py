"""Convolution of volumes with few voxels, as at the end of deep networks, by matrix products."""

import math
from collections.abc import Callable
from functools import partial
from itertools import product

import keras
from keras import ops

from voxlift.models.backend import Tensor, convolve_volumes, float32_kernel_gradient, has_custom_convolution
from voxlift.models.layers.conv_arithmetic import is_plain, pad_for_windows

FEW_POSITIONS = 8  # up to so many output voxels a matrix product is faster than the convolution kernel
MANY_WEIGHTS = 2**20  # from so many weights on, reading and reordering them dominates a convolution's time
# Up to so many output voxels an unsafe filter gradient is a product, else a float32 convolution.
SAFE_POSITIONS = 64


@keras.saving.register_keras_serializable(package="voxlift")
class FewPositionsConv3D(keras.layers.Conv3D):
    """`keras.layers.Conv3D` with other kernels on TensorFlow's CPU where the output has few voxels.

    Arguments, weights and results are those of the Keras layer. With at most `FEW_POSITIONS` output voxels
    and at least `MANY_WEIGHTS` weights, outputs and filter gradient are matrix products of patches: for 512
    to 512 channels on 2x2x2 voxels the convolution's own filter gradient takes 47 ms, the product 10 ms. In
    bfloat16 on few slices TensorFlow's filter gradient also reads uninitialised memory; there it is a product
    too, or computed in float32. Groups, dilation, other dtypes, devices and backends use the Keras path.
    """

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Return the convolution [B, D', H', W', filters], without bias and activation.

        Args:
            inputs: Tensor [B, D, H, W, C] in the compute dtype.
            kernel: Tensor [kd, kh, kw, C, filters] in the compute dtype.
        """
        is_few, is_unsafe = self._is_few(inputs), self._is_unsafe(inputs)
        if not (self.uses_custom_kernels and (is_few or is_unsafe)):
            return super().convolution_op(inputs, kernel)
        return convolve_volumes(
            inputs,
            ops.convert_to_tensor(kernel),
            strides=self.strides,
            padding=self.padding,
            compute_outputs=self._multiply if is_few else None,
            compute_kernel_gradient=self._choose_kernel_gradient(inputs),
        )

    @property
    def uses_custom_kernels(self) -> bool:
        """Whether settings, backend and device allow the other kernels, so that few slices are safe."""
        return is_plain(self) and has_custom_convolution(self.compute_dtype)

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

    def _choose_kernel_gradient(self, inputs: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        positions = self._positions(inputs)
        if positions is not None and positions <= SAFE_POSITIONS:
            return self._multiply_gradient
        shape = (*self.kernel_size, inputs.shape[-1], self.filters)
        return partial(float32_kernel_gradient, shape=shape, strides=self.strides, padding=self.padding)

    def _multiply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        rows = ops.matmul(self._extract_patches(inputs), ops.reshape(kernel, (-1, self.filters)))
        return ops.reshape(rows, (-1, *self.compute_output_shape(inputs.shape)[1:]))

    def _multiply_gradient(self, inputs: Tensor, upstream: Tensor) -> Tensor:
        rows = ops.reshape(upstream, (-1, self.filters))
        shape = (*self.kernel_size, inputs.shape[-1], self.filters)
        return ops.reshape(ops.matmul(ops.transpose(self._extract_patches(inputs)), rows), shape)

    def _extract_patches(self, inputs: Tensor) -> Tensor:
        """Return one row per output voxel with the voxels under the kernel: [B * positions, taps * C]."""
        padded, spans = pad_for_windows(
            inputs,
            sizes=self.compute_output_shape(inputs.shape)[1:4],
            kernel=self.kernel_size,
            strides=self.strides,
            padding=self.padding,
        )
        columns = ops.concatenate([padded[(slice(None), *span)] for span in product(*spans)], axis=-1)
        return ops.reshape(columns, (-1, columns.shape[-1]))


def is_shallow(depth: int | None, taps: int) -> bool:
    """Return whether TensorFlow's bfloat16 filter gradient is unsafe for a kernel on so few slices.

    Observed with TensorFlow 2.21 on AVX512-BF16: NaN after a few steps at depth 2 with a kernel of 3, and at
    depth 4 with a kernel of 5.

    Args:
        depth: Slices of the input, None where unknown.
        taps: Size of the kernel along depth.
    """
    return depth is not None and 1 < depth <= taps


def benefits_from_few_positions(
    input_size: tuple[int | None, ...], output_size: tuple[int | None, ...], kernel_shape: tuple[int, ...]
) -> bool:
    """Return whether a convolution may be faster or safer as `FewPositionsConv3D`.

    Args:
        input_size: Depth, height and width of its input; None where unknown.
        output_size: The same of its output.
        kernel_shape: Size in taps along depth, height and width; input and output channels.
    """
    if is_shallow(input_size[0], kernel_shape[0]):
        return True
    positions = math.prod(size if size is not None else FEW_POSITIONS + 1 for size in output_size)
    return positions <= FEW_POSITIONS and math.prod(kernel_shape) >= MANY_WEIGHTS
