"""Slices of padding along depth that repeat the slices beside them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from voxlift.models.backend import Tensor
from voxlift.models.layers.convolution import Setting


@keras.saving.register_keras_serializable(package="voxlift")
class RepeatEdges3D(keras.layers.Layer):
    """Repetition of the slices at both ends of depth, instead of slices of padding, in [B, D, H, W, C].

    A pool of negative values, and every average pool, would mix zeros of the padding into its result.

    Args:
        padding: Slices of padding at the front and at the back; the slice beside them replaces each.
        kwargs: Arguments of every Keras layer.
    """

    def __init__(self, padding: tuple[int, int], **kwargs: Setting) -> None:
        super().__init__(**kwargs)
        self.padding = (int(padding[0]), int(padding[1]))

    def call(self, inputs: Tensor) -> Tensor:
        """Return [B, D, H, W, C]."""
        front, back = self.padding
        inner = inputs[:, front:-back] if back else inputs[:, front:]
        return ops.concatenate([*[inner[:, :1]] * front, inner, *[inner[:, -1:]] * back], axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        return {**super().get_config(), "padding": self.padding}
