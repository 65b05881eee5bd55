"""Batch normalisation through the backend's fused kernel, and what remains of one that was folded away."""

from typing import Any

import keras
from keras import ops

from voxlift.models.backend import Tensor, add_bias, fused_batch_norm, has_fused_batch_norm
from voxlift.models.layers.convolution import Setting


@keras.saving.register_keras_serializable(package="voxlift")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that runs through TensorFlow's fused kernel.

    Arguments, weights, moving averages and results are those of the Keras layer. Inputs [B, H, W, C] or
    [B, D, H, W, C] in float16, bfloat16 or float32 take the kernel, which keeps statistics in float32 without
    a float32 copy of the activations. Masks, another axis than the last, `synchronized`, `renorm`, other
    ranks, float64 and other backends take the Keras path.
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:  # noqa: FBT001  # Keras passes it so
        """Return inputs normalised over all axes but the last, in the layer's compute dtype.

        Args:
            inputs: Tensor, its channels along the layer's axis.
            training: Whether to normalise by the batch's own statistics and update the moving averages.
            mask: As in Keras; with a mask the Keras path is taken.

        Returns:
            A tensor of the inputs' shape.
        """
        if mask is not None or not self._is_fusable(inputs):
            return super().call(inputs, training=training, mask=mask)
        uses_batch = bool(training and self.trainable)
        outputs, mean, variance = fused_batch_norm(
            inputs,
            gamma=ops.ones_like(self.moving_variance) if self.gamma is None else self.gamma,
            beta=ops.zeros_like(self.moving_mean) if self.beta is None else self.beta,
            mean=self.moving_mean,
            variance=self.moving_variance,
            epsilon=self.epsilon,
            training=uses_batch,
        )
        if uses_batch:
            self._update(self.moving_mean, mean)
            self._update(self.moving_variance, variance)
        return ops.cast(outputs, self.compute_dtype)

    def _is_fusable(self, inputs: Tensor) -> bool:
        rank = len(inputs.shape)
        return (
            rank in (4, 5)
            and self.axis in (-1, rank - 1)
            and not self.synchronized
            and not getattr(self, "renorm", False)
            and self.moving_mean.dtype == "float32"
            and has_fused_batch_norm(keras.backend.standardize_dtype(inputs.dtype))
        )

    def _update(self, moving: Tensor, batch: Tensor) -> None:
        moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))


@keras.saving.register_keras_serializable(package="voxlift")
class ChannelBias(keras.layers.Layer):
    """A bias per channel of [B, ..., C] and an activation: a batch normalisation folded into its convolution.

    Args:
        activation: A name, a configuration or a function, as in Keras; None for none.
        kwargs: Arguments of every Keras layer.
    """

    def __init__(self, activation: Setting = None, **kwargs: Setting) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create `bias`, float32 [C]."""
        self.bias = self.add_weight(name="bias", shape=(input_shape[-1],), initializer="zeros")

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:  # noqa: ARG002, FBT001  # the normalisation's signature
        """Return the activation of inputs plus bias, in the shape and dtype of the inputs.

        Args:
            inputs: Tensor [B, ..., C].
            training: Accepted because the normalisation is called with it; unused.
            mask: The same.
        """
        return self.activation(add_bias(inputs, self.bias))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}
