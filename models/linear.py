"""A linear model of voxels as a Keras model, so that it is scored, explained and exported as networks are."""

import keras
import numpy as np
from keras import layers


def build_linear(weights: np.ndarray, intercept: np.ndarray, *, mean: np.ndarray) -> keras.Model:
    """Return a model from volumes [B, D, H, W, C] to float32 logits [B, K].

    Args:
        weights: [D, H, W, C, K], logits per unit of a voxel.
        intercept: [K].
        mean: [D, H, W, C], subtracted from each volume first, which keeps float32 sums precise.
    """
    *shape, classes = weights.shape
    inputs = keras.Input(tuple(shape), name="volumes")
    axes = tuple(range(1, len(shape) + 1))
    center = layers.Normalization(
        axis=axes, mean=mean, variance=np.ones_like(mean), dtype="float32", name="center"
    )
    head = layers.Dense(classes, dtype="float32", name="logits")
    outputs = head(layers.Flatten(dtype="float32", name="flatten")(center(inputs)))
    head.set_weights([weights.reshape(-1, classes).astype("float32"), intercept.astype("float32")])
    return keras.Model(inputs, outputs, name="linear")
