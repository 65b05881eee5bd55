"""Attention over the tokens of a volume, and its class token and position embeddings."""

import math
from typing import Any

import keras
from keras import ops

from voxlift.models.backend import Tensor
from voxlift.models.layers.convolution import Setting

Sizes = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="voxlift")
class TokenAttention3D(keras.layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` whose keys are the tokens of a volume.

    The keys are some prefix tokens (such as a class token), then those of one plane after the other. Each
    prefix token stands for the volume once, and each position in the plane once per plane, so that prefix
    tokens would get less weight than in the 2D network. Before the softmax, -log(planes) is added to the
    scores of all keys but the prefix tokens: on equal planes the result is that of the 2D network. Scores and
    softmax are in float32, or in float64 if the layer computes in float64.

    Args:
        num_heads: As in Keras, as all other arguments of `keras.layers.MultiHeadAttention`.
        key_dim: As in Keras.
        planes: Planes of tokens along depth.
        prefix: Number of prefix tokens.
        kwargs: Further arguments of `keras.layers.MultiHeadAttention`.
    """

    def __init__(
        self, num_heads: int, key_dim: int, *, planes: int = 1, prefix: int = 0, **kwargs: Setting
    ) -> None:
        super().__init__(num_heads, key_dim, **kwargs)
        self.planes = planes
        self.prefix = prefix

    def _compute_attention(  # the override that Keras documents for another kind of attention
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor = None,
        training: bool | None = None,  # noqa: FBT001  # Keras passes it so
        *args: Setting,
        **kwargs: Setting,
    ) -> tuple[Tensor, Tensor]:
        """Return the values [B, T, N, V] and the weights [B, N, T, S] of queries and keys [B, ., N, K]."""
        if self.planes == 1 or self.prefix == 0:  # the same number for all keys changes nothing
            outputs, weights = super()._compute_attention(
                query, key, value, attention_mask, training, *args, **kwargs
            )
            return outputs, weights
        dtype = "float64" if self.compute_dtype == "float64" else "float32"
        scores = ops.einsum("btnk,bsnk->bnts", query * self.key_dim**-0.5, key)
        scores = ops.cast(scores, dtype) + self._key_bias(ops.shape(key)[1], dtype)
        if attention_mask is not None:
            mask = ops.cast(ops.expand_dims(attention_mask, 1), "bool")
            scores = ops.where(mask, scores, ops.cast(-1e9, dtype))
        weights = ops.cast(ops.softmax(scores, axis=-1), self.compute_dtype)
        dropped = self._dropout_layer(weights, training=training)
        return ops.einsum("bnts,bsnv->btnv", dropped, value), weights

    def _key_bias(self, keys: Tensor, dtype: str) -> Tensor:
        is_prefix = ops.arange(keys) < self.prefix
        return ops.where(is_prefix, ops.cast(0, dtype), ops.cast(-math.log(self.planes), dtype))

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        return {**super().get_config(), "planes": self.planes, "prefix": self.prefix}


@keras.saving.register_keras_serializable(package="voxlift")
class TokenEmbedding3D(keras.layers.Layer):
    """Trainable position embeddings for the tokens [B, T, C] of a volume, and new prefix tokens before them.

    Args:
        planes: Planes of tokens along depth; every plane has position embeddings of its own.
        prefix: Number of new prefix tokens, such as a class token.
        known_prefix: Number of prefix tokens that the inputs have already.
        kwargs: Arguments of every Keras layer.
    """

    def __init__(self, planes: int = 1, *, prefix: int = 0, known_prefix: int = 0, **kwargs: Setting) -> None:
        super().__init__(**kwargs)
        self.planes = planes
        self.prefix = prefix
        self.known_prefix = known_prefix

    def build(self, input_shape: Sizes) -> None:
        """Create `prefix_tokens` [P, C], `prefix_positions` [K, C] and `positions` [planes, N, C].

        Args:
            input_shape: [B, K + planes * N, C].

        Raises:
            ValueError: The number of tokens is unknown, or no multiple of the planes.
        """
        tokens, channels = input_shape[1], input_shape[2]
        if tokens is None or (tokens - self.known_prefix) % self.planes:
            raise ValueError(
                f"TokenEmbedding3D: expected {self.known_prefix} prefix tokens and a multiple of "
                f"{self.planes} tokens, received {tokens} in all. Use the volume size of the lift."
            )
        per_plane = (tokens - self.known_prefix) // self.planes
        shapes = {
            "prefix_tokens": (self.prefix, channels),
            "prefix_positions": (self.known_prefix, channels),
            "positions": (self.planes, per_plane, channels),
        }
        for name, shape in shapes.items():
            weight = (
                self.add_weight(name=name, shape=shape, initializer="random_normal") if shape[0] else None
            )
            setattr(self, name, weight)

    def call(self, inputs: Tensor) -> Tensor:
        """Return tokens [B, P + T, C] for tokens [B, T, C], in the dtype of the inputs."""
        shape = ops.shape(inputs)
        offsets = ops.reshape(self.positions, (-1, inputs.shape[-1]))
        if self.known_prefix:
            offsets = ops.concatenate([self.prefix_positions, offsets], axis=0)
        outputs = inputs + ops.cast(offsets, inputs.dtype)
        if not self.prefix:
            return outputs
        first = ops.broadcast_to(self.prefix_tokens, (shape[0], self.prefix, inputs.shape[-1]))
        return ops.concatenate([ops.cast(first, inputs.dtype), outputs], axis=1)

    def compute_output_shape(self, input_shape: Sizes) -> Sizes:
        """Return [B, P + T, C]."""
        tokens = input_shape[1]
        return (input_shape[0], None if tokens is None else tokens + self.prefix, input_shape[2])

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        own = {"planes": self.planes, "prefix": self.prefix, "known_prefix": self.known_prefix}
        return {**super().get_config(), **own}
