import numpy as np
import pytest
from scipy import stats

from score_sets import build_scores
from voxlift.app.evaluation.bootstrap import metrics_by_seed, model_intervals
from voxlift.app.evaluation.delong import delong_difference
from voxlift.app.evaluation.paired import compare_models
from voxlift.app.evaluation.seed_variance import add_seed_variance, widen_draws


def train_once(rng, base, *, labels, spread):
    """One training: its separation of the classes varies with the seed, its errors with the subjects."""
    separation = 1 + spread * rng.normal()
    values = separation * (labels - 0.5) + 0.7 * base + 0.71 * rng.normal(size=len(labels))
    return build_scores(labels, 1 / (1 + np.exp(-values)))


def train_twice(seed, *, seeds=3, spread=0.4, volumes=100):
    """The fits of two models that are the same, over several seeds on the same subjects."""
    rng = np.random.default_rng(seed)
    labels = np.arange(volumes) % 2
    base = rng.normal(size=volumes)
    return tuple(
        [train_once(rng, base, labels=labels, spread=spread) for _ in range(seeds)] for _ in range(2)
    )


def test_the_variance_between_seeds_is_that_of_a_mean_and_agrees_with_student_and_welch():
    found = add_seed_variance(0.0, [0.1, 0.3, 0.2])
    assert found.variance == pytest.approx(stats.sem([0.1, 0.3, 0.2]) ** 2)
    assert found.degrees_of_freedom == pytest.approx(2)
    assert found.p_value(0.2) == pytest.approx(stats.ttest_1samp([0.1, 0.3, 0.2], 0).pvalue)
    first, second = [1.0, 2.0, 4.0], [2.0, 2.5, 2.1, 2.2]
    # Welch's test is the same sum of two variances; the second sample's is given its own freedom there.
    added = add_seed_variance(stats.sem(second) ** 2, first)
    assert added.variance == pytest.approx(stats.sem(first) ** 2 + stats.sem(second) ** 2)


def test_one_seed_or_equal_seeds_add_nothing():
    draws = np.random.default_rng(0).normal(size=500)
    assert add_seed_variance(0.01, [0.3]).variance == 0.01
    assert widen_draws(draws, 0.0, [0.3], level=0.95) is draws
    assert widen_draws(draws, 0.0, [0.3, 0.3], level=0.95) is draws


def test_draws_are_widened_to_the_interval_of_the_sum_of_variances():
    draws = 0.2 + 0.05 * np.random.default_rng(1).normal(size=20_000)
    widened = widen_draws(draws, 0.2, [0.1, 0.2, 0.3], level=0.95)
    reach = add_seed_variance(draws.var(), [0.1, 0.2, 0.3]).half_width(0.95)
    low, high = np.quantile(widened, [0.025, 0.975])
    assert (low, high) == pytest.approx((0.2 - reach, 0.2 + reach), rel=0.03)


def test_without_variance_over_subjects_the_seeds_alone_make_the_interval():
    widened = widen_draws(np.full(2000, 0.2), 0.2, [0.1, 0.2, 0.3], level=0.95)
    low, high = np.quantile(widened, [0.025, 0.975])
    reach = stats.sem([0.1, 0.2, 0.3]) * stats.t.ppf(0.975, 2)
    assert (low, high) == pytest.approx((0.2 - reach, 0.2 + reach), rel=0.02)


def test_folds_of_a_seed_are_averaged():
    first, _ = train_twice(0, seeds=4)
    found = metrics_by_seed(first, [0, 0, 1, 1])
    assert len(found) == 2
    alone = [metrics_by_seed([fit], None)[0]["auc"] for fit in first]
    assert found[1]["auc"] == pytest.approx(np.mean(alone[2:]))


def test_seeds_widen_every_interval_and_the_bootstrap_agrees_with_delong():
    first, second = train_twice(3)
    blind, seeing = (
        compare_models({"a": first, "b": second}, fit_seeds=seeds)[0].differences["auc"]
        for seeds in (None, [0, 1, 2])
    )
    exact = delong_difference(first, second, fit_seeds=[0, 1, 2])
    assert seeing.high - seeing.low > 1.2 * (blind.high - blind.low)
    assert seeing.high - seeing.low == pytest.approx(exact.high - exact.low, rel=0.1)
    assert seeing.p_value >= blind.p_value
    (found,) = compare_models({"a": first, "b": second}, fit_seeds=[0, 1, 2], resamples=100)
    assert (found.trainings, found.cells) == (3, 3)
    low, high = model_intervals({"a": first}, fit_seeds=[0, 1, 2], resamples=100)["a"]["auc"]
    assert 0 <= low < high <= 1


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_models_that_vary_with_the_seed_differ_significantly_in_at_most_about_five_percent(seeds):
    blind = seeing = 0
    for seed in range(400):
        first, second = train_twice(seed, seeds=seeds, spread=0.15)
        blind += delong_difference(first, second).p_value < 0.05
        seeing += delong_difference(first, second, fit_seeds=range(seeds)).p_value < 0.05
    assert blind / 400 > 0.08  # what leaving the seeds out would do
    assert seeing / 400 <= stats.binom.ppf(0.999, 400, 0.05) / 400
