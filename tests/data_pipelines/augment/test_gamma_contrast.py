import numpy as np
import pytest
import tensorflow as tf

from voxlift.data_pipelines.augment.build import apply_augment, draw_augment
from voxlift.data_pipelines.augment.settings import Augment

VOXELS = np.random.default_rng(0).normal(size=(5, 7, 11, 2)).astype(np.float32)
SETTINGS = Augment(
    gamma_prob=1.0,
    gamma=(0.5, 2.0),
    contrast_prob=1.0,
    contrast=(0.5, 2.0),
    brightness_prob=1.0,
    brightness=0.5,
)


def only(**chosen):
    """Drawn parameters: the named ones, the others neutral."""
    neutral = {"gamma": 1.0, "contrast": 1.0, "brightness": 0.0}
    return {name: tf.constant(value) for name, value in (neutral | chosen).items()}


def test_gamma_bends_between_the_extremes_of_each_channel():
    low, high = VOXELS.min((0, 1, 2)), VOXELS.max((0, 1, 2))
    expected = low + (high - low) * ((VOXELS - low) / (high - low)) ** 1.7
    varied = apply_augment(VOXELS, only(gamma=1.7), SETTINGS).numpy()
    np.testing.assert_allclose(varied, expected, atol=1e-5)
    np.testing.assert_allclose(varied.min((0, 1, 2)), low, atol=1e-6)
    np.testing.assert_allclose(varied.max((0, 1, 2)), high, atol=1e-6)


def test_gamma_of_windowed_voxels_is_the_plain_power_and_a_mask_stays_a_mask():
    windowed = np.linspace(0, 1, 105, dtype=np.float32).reshape(3, 5, 7, 1)
    np.testing.assert_allclose(apply_augment(windowed, only(gamma=0.6), SETTINGS), windowed**0.6, atol=1e-6)
    mask = (windowed > 0.5).astype(np.float32)
    np.testing.assert_array_equal(apply_augment(mask, only(gamma=0.6), SETTINGS), mask)


def test_contrast_stretches_about_the_mean_and_keeps_it():
    mean = VOXELS.mean((0, 1, 2))
    expected = (VOXELS - mean) * 1.5 + mean
    np.testing.assert_allclose(apply_augment(VOXELS, only(contrast=1.5), SETTINGS), expected, atol=1e-5)


def test_brightness_adds_standard_deviations_of_the_channel():
    expected = VOXELS + 0.4 * VOXELS.std((0, 1, 2))
    np.testing.assert_allclose(apply_augment(VOXELS, only(brightness=0.4), SETTINGS), expected, atol=1e-5)


def test_gamma_comes_before_contrast_and_brightness():
    drawn = only(gamma=1.7, contrast=1.5, brightness=-0.3)
    one_by_one = VOXELS
    for name, value in (("gamma", 1.7), ("contrast", 1.5)):
        one_by_one = apply_augment(one_by_one, only(**{name: value}), SETTINGS).numpy()
    # contrast changes the deviation that brightness is measured in, so both act on the same statistics
    one_by_one += -0.3 * one_by_one.std((0, 1, 2)) / 1.5
    np.testing.assert_allclose(apply_augment(VOXELS, drawn, SETTINGS), one_by_one, atol=1e-5)


def test_a_constant_volume_stays_finite_and_constant():
    varied = apply_augment(np.full((5, 7, 11, 1), 2.5, np.float32), only(gamma=2.0, contrast=1.5), SETTINGS)
    np.testing.assert_allclose(varied, 2.5, rtol=1e-6)


def test_factors_are_uniform_in_their_logarithm_and_gates_are_independent():
    settings = Augment(**{**SETTINGS.__dict__, "gamma_prob": 0.5, "brightness_prob": 0.5})
    draw = tf.function(lambda seed: draw_augment(settings, (5, 7, 11, 1), spacing=(1, 1, 1), seed=seed))
    drawn = [draw(tf.constant([9, seed])) for seed in range(300)]
    gamma, contrast, brightness = (
        np.array([one[name] for one in drawn]) for name in ("gamma", "contrast", "brightness")
    )
    assert np.median(contrast) == pytest.approx(1.0, abs=0.15)
    assert 0.5 <= contrast.min() < 0.55
    assert 1.85 < contrast.max() <= 2.0
    assert np.abs(brightness).max() <= 0.5
    for bent in (False, True):
        for moved in (False, True):
            assert ((gamma != 1.0) == bent)[(brightness != 0.0) == moved].mean() == pytest.approx(
                0.5, abs=0.13
            )
