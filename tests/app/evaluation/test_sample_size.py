"""Sample size: DeLong's variance split by class, and power that simulated data sets confirm."""

import numpy as np
import pytest
from scipy.stats import norm

from score_sets import build_scores, correlated_pair
from voxlift.app.evaluation.delong import delong_difference
from voxlift.app.evaluation.sample_size import (
    DifferenceVariance,
    covariance_of_difference,
    planned_error,
    planned_kappa,
    planned_subjects,
    planned_variance,
    required_seeds,
    required_subjects,
    seed_spread,
    smallest_visible_difference,
)
from voxlift.app.evaluation.scores import Scores, ScoresError, select_rows

SIMULATIONS = 1000
AUCS = (0.75, 0.85)
CORRELATION = 0.5


def draw_pair(rng, n, *, aucs=AUCS, scale=1.0, offset=0.0, prefix="s"):
    """Normal scores of two models on n subjects of each class, with these AUCs and a shared part."""
    labels = np.repeat([0, 1], n)
    shared = rng.normal(size=2 * n)
    models = []
    for auc in aucs:
        own = rng.normal(size=2 * n)
        scores = np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * own
        scores = scale * (scores + labels * np.sqrt(2) * norm.ppf(auc)) + offset
        models.append(build_scores(labels, norm.cdf(scores / 20), [f"{prefix}{i}" for i in range(2 * n)]))
    return models


def monte_carlo_error(power, count=SIMULATIONS):
    return 3 * np.sqrt(power * (1 - power) / count)


def test_the_variance_is_delongs_for_one_fit_several_seeds_and_clustered_volumes():
    first, second = correlated_pair(3, separations=(0.5, 1.2))
    clustered = [
        Scores(tuple(f"p{i // 3}" for i in range(len(one))), one.labels, one.probabilities, one.classes)
        for one in (first, second)
    ]
    seeds = [correlated_pair(seed, separations=(0.5, 1.2)) for seed in (3, 3)]
    for pair in ((first, second), clustered, list(zip(*seeds, strict=True))):
        found = covariance_of_difference(*pair)
        total = found.positive[0] + found.negative[0] + found.cross[0]
        expected = delong_difference(*pair).standard_error ** 2
        assert total == pytest.approx(expected, rel=0.08 if pair is clustered else 1e-9)
    assert found.positive_subjects + found.negative_subjects == len(first)


def test_with_folds_the_variance_is_taken_within_each_fold():
    rng = np.random.default_rng(0)
    folds = [draw_pair(rng, 12, scale=3.0**k, offset=4 * k, prefix=f"f{k}-") for k in range(3)]
    models = list(zip(*folds, strict=True))
    found = covariance_of_difference(*models)
    own = [delong_difference(*fold).standard_error ** 2 for fold in folds]
    assert found.positive[0] + found.negative[0] == pytest.approx(sum(own) / 9, rel=1e-9)
    single = [covariance_of_difference(*fold).per_class[0] for fold in folds]
    assert found.per_class[0] == pytest.approx(np.mean(single), rel=1e-9)


def test_unequal_classes_and_other_prevalences_follow_from_the_parts_of_each_class():
    first, second = draw_pair(np.random.default_rng(1), 60)
    kept = [*range(60), *range(60, 80)]  # 60 negative, 20 positive
    found = covariance_of_difference(select_rows(first, kept), select_rows(second, kept))
    assert found.at_prevalence(0.25)[0] / 80 == pytest.approx(found.positive[0] + found.negative[0])
    assert found.at_prevalence(0.5)[0] / 2 == pytest.approx(found.per_class[0])


def test_more_or_fewer_classes_are_refused():
    first, second = correlated_pair(3)
    one = [row for row in range(len(first)) if first.labels[row] == 0]
    with pytest.raises(ScoresError, match="0"):
        covariance_of_difference(select_rows(first, one), select_rows(second, one))


def test_planned_values_give_the_variance_of_simulated_scores():
    first, second = draw_pair(np.random.default_rng(2), 1500)
    measured = covariance_of_difference(first, second).per_class[0]
    r = CORRELATION
    assert planned_variance(AUCS, r) / 2 == pytest.approx(measured, rel=0.08)
    assert planned_variance((0.8, 0.8), 1.0) == pytest.approx(0, abs=1e-6)
    assert planned_variance((0.8, 0.8), r, prevalence=0.2) == pytest.approx(
        planned_variance((0.8, 0.8), r) / 4 * (1 / 0.2 + 1 / 0.8)
    )


def simulated_p_values(rng, n, count):
    """P-values of DeLong's test on `count` data sets at once, which is much faster than one at a time."""
    shared = rng.normal(size=(count, 2 * n))
    placements, scores = [], []
    for auc in AUCS:
        own = np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * rng.normal(size=shared.shape)
        own[:, n:] += np.sqrt(2) * norm.ppf(auc)
        wins = own[:, n:, None] > own[:, None, :n]
        placements.append((wins.mean(axis=2), wins.mean(axis=1)))
        scores.append(own)
    (a_pos, a_neg), (b_pos, b_neg) = placements
    variance = ((b_pos - a_pos).var(axis=1, ddof=1) + (b_neg - a_neg).var(axis=1, ddof=1)) / n
    p_values = 2 * norm.sf(np.abs((b_pos - a_pos).mean(axis=1)) / np.sqrt(variance))
    labels = np.repeat([0, 1], n)
    first, second = (build_scores(labels, norm.cdf(own[0] / 20)) for own in scores)
    assert delong_difference(first, second).p_value == pytest.approx(p_values[0], rel=1e-6)
    return p_values


def test_at_the_suggested_number_the_test_rejects_as_often_as_promised():
    """1000 simulated data sets of one held-out test; the number is suggested from another, large one."""
    rng = np.random.default_rng(3)
    pilot = covariance_of_difference(*draw_pair(rng, 2000)).per_class[0]
    for power in (0.8, 0.9):
        n = required_subjects(DifferenceVariance(pilot), AUCS[1] - AUCS[0], power=power)
        p_values = np.concatenate([simulated_p_values(rng, n, 50) for _ in range(SIMULATIONS // 50)])
        assert np.mean(p_values < 0.05) == pytest.approx(power, abs=monte_carlo_error(power))


@pytest.mark.slow
def test_with_folds_the_test_rejects_as_often_as_promised():
    """Each fold has a network of its own scale and offset, so that pooled scores would be worth less."""
    rng = np.random.default_rng(4)

    def draw_folds(n):
        folds = [draw_pair(rng, n, scale=2.0**k, offset=5 * k, prefix=f"f{k}-") for k in range(4)]
        return tuple(zip(*folds, strict=True))

    pilot = covariance_of_difference(*draw_folds(800)).per_class[0]
    n = required_subjects(DifferenceVariance(pilot), AUCS[1] - AUCS[0], power=0.8)
    found = [delong_difference(*draw_folds(round(n / 4))).p_value < 0.05 for _ in range(SIMULATIONS)]
    assert np.mean(found) == pytest.approx(0.8, abs=monte_carlo_error(0.8) + 0.02)


@pytest.mark.slow
def test_with_several_seeds_the_test_rejects_as_often_as_promised():
    """Each seed shifts the second model's AUC; the shifts have a standard deviation of 0.02."""
    rng, seeds = np.random.default_rng(5), 4

    def draw_seeds(n):
        labels, shared = np.repeat([0, 1], n), rng.normal(size=(3, 2 * n))
        models = [[], []]
        for _ in range(seeds):
            shifted = (AUCS[0], np.clip(AUCS[1] + rng.normal(0, 0.02), 0.5, 0.99))
            for own, (auc, noise) in enumerate(zip(shifted, shared[1:], strict=True)):
                scores = np.sqrt(CORRELATION) * shared[0] + np.sqrt(1 - CORRELATION) * noise
                scores = scores + labels * np.sqrt(2) * norm.ppf(auc)
                models[own].append(build_scores(labels, norm.cdf(scores / 20)))
        return models

    pilot = covariance_of_difference(*draw_seeds(2000)).per_class[0]
    n = required_subjects(DifferenceVariance(pilot, 0.02**2, seeds), AUCS[1] - AUCS[0], power=0.8)
    fits = {"fit_seeds": list(range(seeds))}
    found = [delong_difference(*draw_seeds(n), **fits).p_value < 0.05 for _ in range(SIMULATIONS)]
    assert np.mean(found) == pytest.approx(0.8, abs=monte_carlo_error(0.8) + 0.03)


@pytest.mark.slow
def test_the_interval_of_the_variance_covers_the_true_one():
    rng = np.random.default_rng(6)
    true = covariance_of_difference(*draw_pair(rng, 4000)).per_class[0]
    hits = 0
    for trial in range(200):
        draws = covariance_of_difference(*draw_pair(rng, 60), resamples=300, seed=trial).per_class[1:]
        low, high = np.quantile(draws, [0.025, 0.975])
        hits += low <= true <= high
    assert hits / 200 >= 0.86


def test_resamples_scatter_about_the_variance_and_repeat_with_their_seed():
    first, second = draw_pair(np.random.default_rng(7), 80)
    found = covariance_of_difference(first, second, resamples=400, seed=1).per_class
    assert found[1:].mean() == pytest.approx(found[0], rel=0.05)
    assert np.array_equal(found, covariance_of_difference(first, second, resamples=400, seed=1).per_class)


def test_the_number_is_the_smallest_and_grows_as_the_difference_shrinks():
    one = DifferenceVariance(0.12)
    n = required_subjects(one, 0.05, power=0.8)
    assert one.power(n, 0.05) >= 0.8 > one.power(n - 1, 0.05)
    assert n == pytest.approx(0.12 * (norm.ppf(0.975) + norm.ppf(0.8)) ** 2 / 0.05**2, rel=0.01)
    assert required_subjects(one, 0.025, power=0.8) == pytest.approx(4 * n, rel=0.01)
    assert required_subjects(one, 0.05, power=0.8, alpha=0.01) > n
    assert one.width(4 * n) == pytest.approx(one.width(n) / 2)


def test_seeds_set_a_limit_to_the_power_that_subjects_cannot_pass():
    one = DifferenceVariance(0.12, between_seeds=0.05**2, seeds=3)
    assert required_subjects(one, 0.05, power=0.8) is None
    assert one.power(10**9, 0.05) == pytest.approx(one.power(float("inf"), 0.05), abs=1e-6)
    seeds = required_seeds(one, 0.05, power=0.8)
    assert seeds > 3
    enough = DifferenceVariance(0.12, 0.05**2, seeds)
    assert required_subjects(enough, 0.05, power=0.8) > required_subjects(
        DifferenceVariance(0.12), 0.05, power=0.8
    )


def test_the_spread_between_seeds_is_that_of_their_differences():
    pairs = [correlated_pair(seed, separations=(0.8, 0.8 + seed / 10)) for seed in (1, 2, 3)]
    models = tuple(zip(*pairs, strict=True))
    own = [delong_difference(*pair).difference for pair in pairs]
    assert seed_spread(*models, [0, 1, 2]) == (pytest.approx(np.var(own, ddof=1)), 3)
    assert seed_spread(*models, [0, 0, 0]) == (0.0, 1)


def test_the_planned_error_has_the_variance_of_simulated_errors_that_correlate_by_half():
    rng = np.random.default_rng(8)
    numbers = rng.normal(20, 3, 4000)
    error, per_subject = planned_error(numbers)
    own = np.abs(numbers - np.median(numbers))
    assert error == pytest.approx(own.mean())
    differences = []
    for _ in range(2000):
        first, second = rng.choice(own, 100), rng.choice(own, 100)
        second = np.where(rng.random(100) < 0.5, first, second)  # half of the errors are shared
        differences.append(second.mean() - first.mean())
    assert np.var(differences) == pytest.approx(per_subject / 100, rel=0.1)


def test_the_planned_kappa_has_an_error_that_falls_with_the_subjects():
    kappa, error = planned_kappa([30, 20, 10])
    assert 0.3 < kappa < 0.8
    assert planned_kappa([120, 80, 40])[1] == pytest.approx(error / 2, rel=0.2)
    assert planned_kappa([30, 20, 10]) == (kappa, error)
    assert planned_kappa([30, 0, 30])[0] > 0


def test_before_any_training_the_visible_difference_follows_from_the_counts():
    one = smallest_visible_difference([24, 24])
    assert one == pytest.approx(0.13, abs=0.01)
    assert smallest_visible_difference([96, 96]) == pytest.approx(one / 2)
    assert smallest_visible_difference([6, 42]) > one
    assert smallest_visible_difference([24, 24, 24]) > smallest_visible_difference([48, 48])
    assert np.isnan(smallest_visible_difference([24, 0]))
    assert smallest_visible_difference([planned_subjects(0.05, power=0.5)] * 2) == pytest.approx(
        0.05, rel=0.01
    )
