"""Layers that join columns of a table to the features of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from voxlift.models.backend import Tensor
from voxlift.models.layers.convolution import Setting


@keras.saving.register_keras_serializable(package="voxlift")
class JoinColumns(keras.layers.Layer):
    """Features of an image [B, F] and of columns of a table [B, C] as one vector, float32 [B, F + C].

    Args:
        kwargs: Arguments of every Keras layer.
    """

    def __init__(self, **kwargs: Setting) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the features of the image, then those of the columns."""
        return ops.concatenate([ops.cast(one, "float32") for one in inputs], axis=-1)

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Return [B, F + C]."""
        return (input_shape[0][0], sum(shape[-1] or 0 for shape in input_shape))


@keras.saving.register_keras_serializable(package="voxlift")
class RepeatColumns(keras.layers.Layer):
    """The columns of each volume once per slice, in the order of `FoldSlices`: [B, C] -> [B * count, C].

    Args:
        count: Number of slices per volume.
        kwargs: Arguments of every Keras layer.
    """

    def __init__(self, count: int, **kwargs: Setting) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.count = count

    def call(self, inputs: Tensor) -> Tensor:
        """Return each row `count` times, one after the other."""
        return ops.repeat(inputs, self.count, axis=0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return [B * count, C]."""
        return (None if input_shape[0] is None else input_shape[0] * self.count, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        return {**super().get_config(), "count": self.count}
