"""Fitted power laws: exponent and interval are those of ordinary least squares, and cover the true law."""

import numpy as np
import pytest
from scipy import stats

from voxlift.app.studies.complexity.laws import fit_power_law


def test_the_fit_is_ordinary_least_squares_of_the_logarithms():
    rng = np.random.default_rng(3)
    sizes = np.array([512, 4096, 13824, 32768, 110592])
    costs = 1e-6 * sizes**1.2 * np.exp(rng.normal(0, 0.1, len(sizes)))
    law = fit_power_law(sizes, costs)
    design = np.stack([np.ones(5), np.log(sizes)], axis=1)
    (intercept, slope), (rss,), *_ = np.linalg.lstsq(design, np.log(costs))
    variance = rss / 3 * np.linalg.inv(design.T @ design)[1, 1]
    half_width = stats.t.ppf(0.975, 3) * np.sqrt(variance)
    assert law.exponent == pytest.approx(slope)
    assert (law.low, law.high) == pytest.approx((slope - half_width, slope + half_width))
    assert law.predict(1000) == pytest.approx(np.exp(intercept) * 1000**slope)


def test_the_interval_holds_the_true_exponent_as_often_as_it_states():
    rng = np.random.default_rng(0)
    sizes = np.geomspace(100, 10_000, 5)
    laws = [fit_power_law(sizes, sizes**1.5 * np.exp(rng.normal(0, 0.2, 5))) for _ in range(400)]
    held = np.mean([law.low <= 1.5 <= law.high for law in laws])
    assert 0.92 <= held <= 0.98


def test_a_constant_cost_has_the_exponent_0_with_certainty():
    law = fit_power_law([10, 20, 30], [774, 774, 774])
    assert (law.exponent, law.low, law.high) == pytest.approx((0, 0, 0))


def test_two_points_give_an_exponent_without_an_interval():
    law = fit_power_law([10, 1000], [1, 100])
    assert law.exponent == pytest.approx(1.0)
    assert np.isnan(law.low)
    assert np.isnan(law.high)


@pytest.mark.parametrize(("sizes", "costs"), [([10], [1]), ([10, 10], [1, 2]), ([10, 20], [0, 5])])
def test_no_law_without_two_sizes_or_with_a_cost_of_nothing(sizes, costs):
    assert fit_power_law(sizes, costs) is None
