"""Layers that pool features of slices: a frozen network, neighbours side by side, gated attention."""

from typing import Any

import keras
from keras import ops

from voxlift.models.backend import Tensor
from voxlift.models.layers.convolution import Setting
from voxlift.models.layers.slices import EXCLUDED


@keras.saving.register_keras_serializable(package="voxlift")
class FrozenNetwork(keras.Model):
    """A network that computes as in inference, also in the training of a model around it.

    Frozen weights alone would leave its dropout active, and Keras gives `training` of the model around it to
    every network inside, whatever it was called with.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Setting) -> None:  # noqa: ANN401 - as a functional model
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        self.trainable = False

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:  # noqa: ARG002, FBT001 - Keras's signature
        """Return the outputs in inference."""
        return super().call(inputs, training=False, mask=mask)


@keras.saving.register_keras_serializable(package="voxlift")
class JoinNeighbours(keras.layers.Layer):
    """The features of each slice between those of the slices before and after: [B, N, F] -> [B, N, 3 * F].

    The first and the last slice stand for the neighbours that they lack.
    """

    def call(self, features: Tensor) -> Tensor:
        """Return features [B, N, 3 * F] of features [B, N, F] of slices in order."""
        before = ops.concatenate([features[:, :1], features[:, :-1]], axis=1)
        after = ops.concatenate([features[:, 1:], features[:, -1:]], axis=1)
        return ops.concatenate([before, features, after], axis=-1)

    def compute_output_shape(self, features_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return [B, N, 3 * F]."""
        return (*features_shape[:-1], 3 * (features_shape[-1] or 0))


@keras.saving.register_keras_serializable(package="voxlift")
class GatedAttention(keras.layers.Layer):
    """The mean of the features of slices with learned weights: [B, N, F] -> float32 [B, F].

    The weight of a slice is the softmax over slices of w * (tanh(V * f) . sigmoid(U * f)), of its features f.

    Args:
        units: Rows of V and U.
        kwargs: Arguments of every Keras layer.

    Source:
        Ilse et al. (2018), Attention-based Deep Multiple Instance Learning, equation 9, arXiv:1802.04712.
    """

    def __init__(self, units: int = 64, **kwargs: Setting) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="tanh", dtype="float32", name="hidden")
        self.gate = keras.layers.Dense(units, activation="sigmoid", dtype="float32", name="gate")
        self.score = keras.layers.Dense(1, use_bias=False, dtype="float32", name="score")

    def build(self, features_shape: tuple[int | None, ...], **_: Setting) -> None:
        """Create the weights for features [B, N, F]."""
        self.hidden.build(features_shape)
        self.gate.build(features_shape)
        self.score.build((*features_shape[:-1], self.units))

    def call(self, features: Tensor, counts: Tensor = None) -> Tensor:
        """Return the mean of features.

        Args:
            features: Of slices, [B, N, F].
            counts: 1.0 or 0.0 per slice, [B, N]: whether the slice counts; None if all do.

        Returns:
            Float32 [B, F].
        """
        return ops.sum(self.attend(features, counts) * features, axis=1)

    def attend(self, features: Tensor, counts: Tensor = None) -> Tensor:
        """Return the weights of slices [B, N, 1], whose sum over the slices is 1; arguments as of `call`."""
        scores = self.score(self.hidden(features) * self.gate(features))
        excluded = 0.0 if counts is None else (1.0 - counts)[..., None] * EXCLUDED
        return ops.softmax(scores + excluded, axis=1)

    def compute_output_shape(
        self, features_shape: tuple[int | None, ...], *_: Setting, **__: Setting
    ) -> tuple[int | None, ...]:
        """Return [B, F]."""
        return (features_shape[0], features_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        return {**super().get_config(), "units": self.units}
