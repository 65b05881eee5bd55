"""A small vision transformer in Keras, as a user would write it for `model.builder`.

    voxlift-train --config-dir benchmarks/conf experiment=adrenal data.npz=adrenalmnist3d.npz model=vit3d

Start the command in the folder above this one, which makes this module importable. Of the layers only
`AddPositions` is not one of Keras; the lift recognises it by proof.
"""

from typing import Any

import keras
from keras import layers

Tensor = Any  # Keras ships no types


@keras.saving.register_keras_serializable(package="benchmarks")
class AddPositions(layers.Layer):
    """Adds a learned embedding of the position to tokens [B, T, C]."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the embedding [T, C]."""
        initializer = keras.initializers.TruncatedNormal(stddev=0.02)
        self.positions = self.add_weight(shape=input_shape[1:], initializer=initializer, name="positions")

    def call(self, inputs: Tensor) -> Tensor:
        """Return the tokens [B, T, C] with their positions."""
        return inputs + keras.ops.cast(self.positions, inputs.dtype)


def small_vit(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    patch: int = 7,
    width: int = 64,
    blocks: int = 4,
    heads: int = 4,
) -> keras.Model:
    """Return a vision transformer [B, H, W, C] -> logits [B, classes], without a class token.

    Args:
        input_shape: Height, width and channels; the first two are multiples of the patch.
        classes: Number of logits.
        patch: Pixels along each side of a patch.
        width: Channels of a token.
        blocks: Number of transformer blocks.
        heads: Of the attention.

    Source: Dosovitskiy et al. (2021), An Image is Worth 16x16 Words, arXiv:2010.11929.
    """
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(width, patch, strides=patch, name="patches")(inputs)
    x = AddPositions(name="positions")(layers.Reshape((-1, width))(x))
    for _ in range(blocks):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(y, y)])
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.Dense(2 * width, activation="gelu")(y)
        x = layers.Add()([x, layers.Dense(width)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-6)(x))
    return keras.Model(inputs, layers.Dense(classes, dtype="float32")(layers.Dropout(0.2)(x)))
