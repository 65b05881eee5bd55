"""An offset for every channel with an activation: what is left of a normalisation that was folded away."""

from typing import Any

import keras

from voxlift.models.backend import Tensor, add_bias
from voxlift.models.layers.convolution import Setting


@keras.saving.register_keras_serializable(package="voxlift")
class ChannelBias(keras.layers.Layer):
    """Adds one number per channel to [B, ..., C], then applies an activation; same shape and dtype.

    Args:
        activation: As Keras takes it; None for none.
        kwargs: What every Keras layer takes.
    """

    def __init__(self, activation: Setting = None, **kwargs: Setting) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the offset, float32 [C]."""
        self.bias = self.add_weight(name="bias", shape=(input_shape[-1],), initializer="zeros")

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:  # noqa: ARG002, FBT001  # those of the normalisation
        """Return the activation of inputs [B, ..., C] with their offset, in the dtype of the inputs.

        Args:
            inputs: Tensor [B, ..., C].
            training: As the normalisation took it; changes nothing.
            mask: The same.
        """
        return self.activation(add_bias(inputs, self.bias))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of this layer."""
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}
