import numpy as np
import pytest
from scipy.stats import kstest

from voxlift.data_pipelines.augment.build import apply_augment, draw_augment
from voxlift.data_pipelines.augment.settings import Augment

SETTINGS = Augment(noise_prob=1.0, noise_sd=(0.2, 0.2))


def test_noise_is_white_normal_and_scaled_by_each_channels_own_spread():
    voxels = np.random.default_rng(0).normal(size=(15, 17, 21, 2)).astype(np.float32) * [1.0, 50.0]
    voxels = voxels.astype(np.float32)
    drawn = draw_augment(SETTINGS, voxels.shape, spacing=(1, 1, 1), seed=[1, 2])
    added = (apply_augment(voxels, drawn, SETTINGS).numpy() - voxels) / voxels.std((0, 1, 2))
    assert kstest(added[..., 0].ravel() / 0.2, "norm").pvalue > 1e-3
    assert kstest(added[..., 1].ravel() / 0.2, "norm").pvalue > 1e-3
    for one, other in ((added[1:], added[:-1]), (added[..., :1], added[..., 1:])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.06


def test_the_field_is_replayed_from_its_drawn_seed():
    voxels = np.random.default_rng(0).normal(size=(5, 7, 11, 1)).astype(np.float32)
    drawn = draw_augment(SETTINGS, voxels.shape, spacing=(1, 1, 1), seed=[1, 2])
    first, second = (apply_augment(voxels, drawn, SETTINGS).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert drawn["noise_sd"].numpy() == pytest.approx(0.2)


def test_a_constant_volume_stays_constant():
    drawn = draw_augment(SETTINGS, (5, 7, 11, 1), spacing=(1, 1, 1), seed=[1, 2])
    np.testing.assert_array_equal(apply_augment(np.ones((5, 7, 11, 1), np.float32), drawn, SETTINGS), 1.0)
