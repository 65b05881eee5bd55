import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter

from voxlift.data_pipelines.augment.build import apply_augment, draw_augment
from voxlift.data_pipelines.augment.settings import Augment

SPACING = (3.0, 1.5, 0.8)
VOXELS = np.random.default_rng(0).normal(size=(5, 7, 11, 2)).astype(np.float32)


def test_blur_is_scipys_gaussian_renormalised_at_the_border():
    settings = Augment(blur_prob=1.0, blur_sigma_mm=(0.5, 2.0))
    drawn = draw_augment(settings, VOXELS.shape, spacing=SPACING, seed=[1, 2])
    sigmas = drawn["blur_sigma_mm"].numpy() / np.array(SPACING)

    def smooth(array):
        return gaussian_filter(array.astype(float), sigmas, mode="constant", radius=11)

    expected = np.stack([smooth(VOXELS[..., c]) / smooth(np.ones(VOXELS.shape[:3])) for c in range(2)], -1)
    np.testing.assert_allclose(apply_augment(VOXELS, drawn, settings), expected, atol=1e-5)


def test_a_constant_volume_stays_constant():
    settings = Augment(blur_prob=1.0, blur_sigma_mm=(2.0, 2.0))
    drawn = draw_augment(settings, (5, 7, 11, 1), spacing=SPACING, seed=[1, 2])
    np.testing.assert_allclose(
        apply_augment(np.full((5, 7, 11, 1), 3.0, np.float32), drawn, settings), 3.0, rtol=1e-6
    )


def test_widths_are_drawn_within_their_range_and_zero_where_the_blur_is_off():
    settings = Augment(blur_prob=0.5, blur_sigma_mm=(0.5, 2.0))
    draw = tf.function(
        lambda seed: draw_augment(settings, (5, 7, 11, 1), spacing=SPACING, seed=seed)["blur_sigma_mm"]
    )
    sigmas = np.array([draw(tf.constant([0, seed])) for seed in range(200)])
    assert (sigmas == 0).mean() == pytest.approx(0.5, abs=0.12)
    acting = sigmas[sigmas > 0]
    assert 0.5 <= acting.min() < 0.7
    assert 1.8 < acting.max() <= 2.0
