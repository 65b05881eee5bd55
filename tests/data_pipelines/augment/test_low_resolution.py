import math

import numpy as np
import pytest
import tensorflow as tf

from voxlift.data_pipelines.augment.build import apply_augment, draw_augment
from voxlift.data_pipelines.augment.settings import Augment

VOXELS = np.random.default_rng(0).normal(size=(5, 7, 11, 2)).astype(np.float32)


def thicken(line, factor):
    """Means over thick voxels, then np.interp between their centres; along the first axis."""
    side = len(line)
    thick = []
    for low in (k * factor for k in range(math.ceil(side / factor))):
        weights = np.clip(
            np.minimum(np.arange(side) + 1, low + factor) - np.maximum(np.arange(side), low), 0, None
        )
        thick.append(np.tensordot(weights, line, 1) / weights.sum())
    centres = (np.arange(len(thick)) + 0.5) * factor - 0.5
    columns = np.array(thick).reshape(len(thick), -1).T
    return np.stack([np.interp(np.arange(side), centres, column) for column in columns], -1).reshape(
        line.shape
    )


@pytest.mark.parametrize("every", [False, True])
def test_low_resolution_is_averaging_and_linear_interpolation(every):
    settings = Augment(lowres_prob=1.0, lowres_factor=(1.5, 4.0), lowres_all_axes=every)
    for seed in range(3):
        drawn = draw_augment(settings, VOXELS.shape, spacing=(1, 1, 1), seed=[1, seed])
        factors = drawn["lowres_factor"].numpy().astype(float)
        assert (factors > 1).sum() == (3 if every else 1)
        expected = VOXELS.astype(float)
        for axis, factor in enumerate(factors):
            expected = np.moveaxis(thicken(np.moveaxis(expected, axis, 0), factor), 0, axis)
        np.testing.assert_allclose(apply_augment(VOXELS, drawn, settings), expected, atol=1e-5)


def test_all_axes_have_their_turn_but_never_the_depth_of_a_slice():
    settings = Augment(lowres_prob=1.0, lowres_factor=(2.0, 2.0))

    def axes(shape):
        draw = tf.function(
            lambda seed: draw_augment(settings, shape, spacing=(1, 1, 1), seed=seed)["lowres_factor"]
        )
        return {int(np.argmax(draw(tf.constant([0, seed])))) for seed in range(30)}

    assert axes((5, 7, 11, 1)) == {0, 1, 2}
    assert axes((7, 11, 1)) == {1, 2}
