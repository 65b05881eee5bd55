"""Volumes with a planted spot, and a network that detects it."""

import keras
import numpy as np
import pytest
from keras import layers

SIDES = (8, 12, 16)  # depth, height, width
SPOT = (slice(4, 6), slice(2, 5), slice(9, 13))


@pytest.fixture(name="volumes")
def volumes_with_a_spot_in_the_first():
    voxels = np.random.default_rng(0).normal(scale=0.01, size=(2, *SIDES, 1)).astype("float32")
    voxels[(0, *SPOT)] += 1.0
    return voxels


@pytest.fixture
def spot():
    return SPOT


@pytest.fixture(name="detector")
def detector_of_a_rank():
    """A function of the rank; in its networks brightness supports class 1 and contradicts class 0."""
    return _detector


def _detector(rank, classes=3):
    convolution, pool, average = (
        getattr(layers, f"{kind}{rank}D") for kind in ("Conv", "MaxPooling", "GlobalAveragePooling")
    )
    model = keras.Sequential(
        [
            keras.Input((*SIDES[3 - rank :], 1)),
            convolution(2, 3, padding="same", activation="relu", use_bias=False, name="first"),
            pool(2, name="pool"),
            average(),
            layers.Dense(classes, use_bias=False),
        ]
    )
    model.set_weights([np.full(model.weights[0].shape, 0.1), np.array([[-1.0, 1.0, 0.0]] * 2)])
    return model
