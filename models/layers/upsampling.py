"""Trilinear upsampling of volumes."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from voxlift.models.backend import Tensor
from voxlift.models.layers.conv_arithmetic import standardize_triple
from voxlift.models.layers.convolution import Setting


def resize_volume(inputs: Tensor, shape: Sequence[Tensor]) -> Tensor:
    """Return volumes resized by trilinear interpolation, voxel centres at half-integers, edges repeated.

    Args:
        inputs: Tensor [B, D, H, W, C].
        shape: The new depth, height and width in voxels.

    Returns:
        Tensor [B, *shape, C] in the dtype of the inputs.
    """
    batch, depth, height, width, channels = ops.shape(inputs)
    rows = ops.reshape(inputs, (batch, depth, height * width, channels))
    # Depth first: this pass costs least while the slices are small.
    rows = _resize(rows, (shape[0], height * width))
    slices = _resize(ops.reshape(rows, (-1, height, width, channels)), (shape[1], shape[2]))
    return ops.reshape(slices, (batch, *shape, channels))


def _resize(images: Tensor, shape: tuple[Tensor, Tensor]) -> Tensor:
    resized = ops.image.resize(images, shape, interpolation="bilinear", data_format="channels_last")
    return ops.cast(resized, images.dtype)


@keras.saving.register_keras_serializable(package="voxlift")
class TrilinearUpSampling3D(keras.layers.Layer):
    """Upsampling of volumes [B, D, H, W, C] by linear interpolation along every axis.

    The 3D form of `keras.layers.UpSampling2D(interpolation="bilinear")`, and equal to it on volumes constant
    along depth. `keras.layers.UpSampling3D` can only repeat voxels.

    Args:
        size: One factor, or factors for depth, height and width.
        data_format: None or `channels_last`.
        kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: A factor is below 1, or `data_format` is channels first.
    """

    def __init__(
        self, size: int | Sequence[int] = 2, *, data_format: str | None = None, **kwargs: Setting
    ) -> None:
        super().__init__(**kwargs)
        self.size = standardize_triple(size, "size")
        self.data_format = data_format or "channels_last"
        self.input_spec = keras.layers.InputSpec(ndim=5)
        if self.data_format != "channels_last":
            raise ValueError(
                f"TrilinearUpSampling3D: expected data_format 'channels_last', received {data_format!r}. "
                "Move the channels to the last axis: [B, D, H, W, C]."
            )

    def call(self, inputs: Tensor) -> Tensor:
        """Return volumes [B, D * d, H * h, W * w, C] for factors (d, h, w), in the dtype of the inputs."""
        sizes = ops.shape(inputs)[1:4]
        return resize_volume(inputs, [size * factor for size, factor in zip(sizes, self.size, strict=True)])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return [B, D, H, W, C] of the output, None where unknown."""
        pairs = zip(input_shape[1:4], self.size, strict=True)
        sizes = [None if size is None else size * factor for size, factor in pairs]
        return (input_shape[0], *sizes, input_shape[4])

    def get_config(self) -> dict[str, Any]:
        """Return the settings, serialised."""
        return {**super().get_config(), "size": self.size, "data_format": self.data_format}
