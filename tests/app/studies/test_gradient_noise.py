"""The noise scale of gradients whose true mean and covariance are known."""

import math

import numpy as np
import pytest

from voxlift.app.studies.gradient_noise import estimate_noise_scale, two_point_estimate

BATCH = 4


def draw_gradients(rng, *, batches, signal, spread, size=400):
    """Gradients [batches, size] of batches of examples: mean of norm sqrt(signal), tr(S) = spread."""
    mean = np.full(size, math.sqrt(signal / size))
    return mean + rng.normal(0, math.sqrt(spread / size / BATCH), (batches, size))


def test_the_estimates_are_unbiased():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        gradients = draw_gradients(rng, batches=8, signal=2.0, spread=40.0)
        one = estimate_noise_scale(gradients @ gradients.T, batch_size=BATCH)
        found.append((one.variance, one.signal))
    variance, signal = np.mean(found, axis=0)
    assert variance == pytest.approx(40.0, rel=0.02)
    assert signal == pytest.approx(2.0, rel=0.03)


def test_the_scale_is_that_of_the_norms_of_a_small_and_a_large_batch():
    rng = np.random.default_rng(1)
    gradients = draw_gradients(rng, batches=16, signal=3.0, spread=60.0)
    one = estimate_noise_scale(gradients @ gradients.T, batch_size=BATCH)
    small = (np.linalg.norm(gradients, axis=1) ** 2).mean()
    large = np.linalg.norm(gradients.mean(axis=0)) ** 2
    variance, signal = two_point_estimate(small, large, small_batch=BATCH, large_batch=16 * BATCH)
    assert one.scale == pytest.approx(variance / signal)


def test_the_interval_holds_the_true_scale_most_of_the_time():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        gradients = draw_gradients(rng, batches=16, signal=4.0, spread=40.0)
        one = estimate_noise_scale(gradients @ gradients.T, batch_size=BATCH)
        held += one.low <= 10.0 <= one.high
    assert held >= 180


def test_a_gradient_lost_in_noise_has_no_upper_end():
    rng = np.random.default_rng(5)
    gradients = draw_gradients(rng, batches=8, signal=1e-9, spread=100.0)
    one = estimate_noise_scale(gradients @ gradients.T, batch_size=BATCH)
    assert one.high > 100  # in truth 1e11: what matters is that no small bound is claimed
    assert one.high >= one.scale >= one.low


def test_equal_gradients_have_no_noise():
    one = estimate_noise_scale(np.full((4, 4), 2.5), batch_size=BATCH)
    assert (one.scale, one.signal) == (0.0, 2.5)


def test_two_batches_are_too_few():
    with pytest.raises(ValueError, match="3 batches or more"):
        estimate_noise_scale(np.eye(2), batch_size=1)
