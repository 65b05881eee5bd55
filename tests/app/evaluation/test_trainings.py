import numpy as np
import pytest
from scipy import stats

from voxlift.app.evaluation.bootstrap import add_trainings, metrics_by_training, model_intervals, widen_draws
from voxlift.app.evaluation.delong import delong_difference
from voxlift.app.evaluation.paired import compare_models
from voxlift.app.evaluation.scores import Scores


def trained(rng, base, *, labels, spread):
    """One training: its separation of the classes varies with the seed, its errors go with the subjects."""
    separation = 1 + spread * rng.normal()
    values = separation * (labels - 0.5) + 0.7 * base + 0.71 * rng.normal(size=len(labels))
    chance = 1 / (1 + np.exp(-values))
    names = [f"s{index:03d}" for index in range(len(labels))]
    return Scores(names, labels, np.stack([1 - chance, chance], axis=1), ("no", "yes"))


def grid(seed, *, seeds=3, spread=0.4, volumes=100):
    """Cells of two models that are the same, over several seeds on the same subjects."""
    rng = np.random.default_rng(seed)
    labels = np.arange(volumes) % 2
    base = rng.normal(size=volumes)
    return tuple([trained(rng, base, labels=labels, spread=spread) for _ in range(seeds)] for _ in range(2))


def test_the_variance_between_trainings_is_that_of_a_mean_and_welch_agrees_on_the_freedom():
    found = add_trainings(0.0, [0.1, 0.3, 0.2])
    assert found.variance == pytest.approx(stats.sem([0.1, 0.3, 0.2]) ** 2)
    assert found.freedom == pytest.approx(2)
    assert found.p_value(0.2) == pytest.approx(stats.ttest_1samp([0.1, 0.3, 0.2], 0).pvalue)
    first, second = [1.0, 2.0, 4.0], [2.0, 2.5, 2.1, 2.2]
    # Welch's test is the same sum of two variances; the second sample's is given its own freedom there.
    added = add_trainings(stats.sem(second) ** 2, first)
    assert added.variance == pytest.approx(stats.sem(first) ** 2 + stats.sem(second) ** 2)


def test_one_training_or_equal_trainings_add_nothing():
    draws = np.random.default_rng(0).normal(size=500)
    assert add_trainings(0.01, [0.3]).variance == 0.01
    assert widen_draws(draws, 0.0, [0.3], level=0.95) is draws
    assert widen_draws(draws, 0.0, [0.3, 0.3], level=0.95) is draws


def test_draws_are_widened_to_the_interval_of_the_sum_of_variances():
    draws = 0.2 + 0.05 * np.random.default_rng(1).normal(size=20_000)
    widened = widen_draws(draws, 0.2, [0.1, 0.2, 0.3], level=0.95)
    reach = add_trainings(draws.var(), [0.1, 0.2, 0.3]).reach(0.95)
    low, high = np.quantile(widened, [0.025, 0.975])
    assert (low, high) == pytest.approx((0.2 - reach, 0.2 + reach), rel=0.03)


def test_where_subjects_show_no_spread_the_trainings_alone_make_the_interval():
    widened = widen_draws(np.full(2000, 0.2), 0.2, [0.1, 0.2, 0.3], level=0.95)
    low, high = np.quantile(widened, [0.025, 0.975])
    reach = stats.sem([0.1, 0.2, 0.3]) * stats.t.ppf(0.975, 2)
    assert (low, high) == pytest.approx((0.2 - reach, 0.2 + reach), rel=0.02)


def test_folds_of_a_seed_form_one_training():
    first, _ = grid(0, seeds=4)
    found = metrics_by_training(first, [0, 0, 1, 1])
    assert len(found) == 2
    alone = [metrics_by_training([cell], None)[0]["auc"] for cell in first]
    assert found[1]["auc"] == pytest.approx(np.mean(alone[2:]))


def test_seeds_widen_every_interval_and_the_bootstrap_agrees_with_delong():
    first, second = grid(3)
    blind, seeing = (
        compare_models({"a": first, "b": second}, trainings=seeds)[0].differences["auc"]
        for seeds in (None, [0, 1, 2])
    )
    exact = delong_difference(first, second, trainings=[0, 1, 2])
    assert seeing.high - seeing.low > 1.2 * (blind.high - blind.low)
    assert seeing.high - seeing.low == pytest.approx(exact.high - exact.low, rel=0.1)
    assert seeing.p_value >= blind.p_value
    (found,) = compare_models({"a": first, "b": second}, trainings=[0, 1, 2], resamples=100)
    assert (found.trainings, found.cells) == (3, 3)
    low, high = model_intervals({"a": first}, trainings=[0, 1, 2], resamples=100)["a"]["auc"]
    assert 0 <= low < high <= 1


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_models_whose_trainings_vary_are_told_apart_in_about_five_percent_at_most(seeds):
    blind = seeing = 0
    for seed in range(400):
        first, second = grid(seed, seeds=seeds, spread=0.15)
        blind += delong_difference(first, second).p_value < 0.05
        seeing += delong_difference(first, second, trainings=range(seeds)).p_value < 0.05
    assert blind / 400 > 0.08  # what leaving the trainings out would do
    assert seeing / 400 <= stats.binom.ppf(0.999, 400, 0.05) / 400
