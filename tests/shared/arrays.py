"""Random arrays for tests that need numbers and not what they mean."""

import numpy as np


def draw(shape, seed=0, mean=0.0, sd=1.0):
    """Normally distributed float32 values; another seed gives others."""
    return np.random.default_rng(seed).normal(mean, sd, shape).astype("float32")
