import numpy as np
import pytest
import tensorflow as tf

from voxlift.data_pipelines.augment.build import apply_augment, draw_augment
from voxlift.data_pipelines.augment.settings import Augment

VOXELS = np.random.default_rng(0).normal(size=(5, 7, 11, 2)).astype(np.float32)
SETTINGS = Augment(cutout_prob=1.0, cutout_fraction=(0.3, 0.6), cutout_boxes=2)


@pytest.mark.parametrize("seed", range(3))
def test_exactly_the_drawn_boxes_take_the_fill_value(seed):
    drawn = draw_augment(SETTINGS, VOXELS.shape, spacing=(1, 1, 1), seed=[0, seed])
    expected = VOXELS.copy()
    for low, size in zip(drawn["cutout_low"].numpy(), drawn["cutout_size"].numpy(), strict=True):
        assert (low >= 0).all()
        assert (low + size <= VOXELS.shape[:3]).all()
        assert (size == np.round(size[2] / 11 * np.array(VOXELS.shape[:3]))).sum() >= 1
        expected[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))] = VOXELS.min((0, 1, 2))
    np.testing.assert_array_equal(apply_augment(VOXELS, drawn, SETTINGS), expected)
    assert (expected != VOXELS).any()


def test_boxes_reach_every_corner():
    draw = tf.function(lambda seed: draw_augment(SETTINGS, VOXELS.shape, spacing=(1, 1, 1), seed=seed))
    drawn = [draw(tf.constant([0, seed])) for seed in range(150)]
    low = np.concatenate([one["cutout_low"] for one in drawn])
    high = low + np.concatenate([one["cutout_size"] for one in drawn])
    assert low.min(0).tolist() == [0, 0, 0]
    assert high.max(0).tolist() == [5, 7, 11]


def test_a_box_covers_the_one_slice_there_is():
    drawn = draw_augment(SETTINGS, (7, 11, 1), spacing=(1, 1, 1), seed=[0, 1])
    assert (drawn["cutout_size"].numpy()[:, 0] == 1).all()
    varied = apply_augment(VOXELS[0], drawn, SETTINGS).numpy()
    assert (varied != VOXELS[0]).any()
