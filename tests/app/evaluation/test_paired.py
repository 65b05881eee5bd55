import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from voxlift.app.evaluation.bootstrap import model_intervals, point_metrics
from voxlift.app.evaluation.delong import (
    _variance,
    delong_difference,
    structural_components,
    subject_components,
)
from voxlift.app.evaluation.paired import compare_models, holm, mcnemar_test, sign_flip_p
from voxlift.app.evaluation.scores import Scores, ScoresError, take


def scored(labels, chance, subjects=None, threshold=0.5):
    chance = np.asarray(chance, dtype=float)
    names = subjects if subjects is not None else [f"s{index:03d}" for index in range(len(labels))]
    return Scores(names, labels, np.stack([1 - chance, chance], axis=1), ("no", "yes"), threshold=threshold)


def bootstrap(first, second, **options):
    """The differences of every metric, second minus first."""
    (found,) = compare_models({"first": first, "second": second}, **options)
    return found.differences


def pair(seed, volumes=60, shifts=(1.0, 1.0), *, shared=0.7):
    """Two models whose scores correlate, with their separations of the classes in standard deviations."""
    rng = np.random.default_rng(seed)
    labels = np.arange(volumes) % 2
    common = rng.normal(size=volumes)
    models = []
    for shift in shifts:
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=volumes)
        models.append(scored(labels, 1 / (1 + np.exp(-(shift * (labels - 0.5) + noise)))))
    return tuple(models)


def three_class_pair(seed, volumes=90):
    rng = np.random.default_rng(seed)
    labels = np.arange(volumes) % 3
    found = []
    for strength in (0.2, 2.5):
        logits = rng.normal(size=(volumes, 3)) + strength * np.eye(3)[labels]
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        found.append(Scores([f"s{i}" for i in range(volumes)], labels, p, "xyz"))
    return tuple(found)


def brute_force_delong(first, second):
    """DeLong, DeLong and Clarke-Pearson 1988, equations 4 to 6, written as they stand."""
    y = first.labels == 1
    tens, ones, aucs = [], [], []
    for scores in (first, second):
        p = scores.probabilities[:, 1]
        psi = (p[y][:, None] > p[~y]) + 0.5 * (p[y][:, None] == p[~y])
        tens.append(psi.mean(axis=1))
        ones.append(psi.mean(axis=0))
        aucs.append(psi.mean())
    covariance = np.cov(tens) / y.sum() + np.cov(ones) / (~y).sum()
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    return aucs, error, np.sqrt(np.diag(covariance))


@pytest.mark.parametrize("seed", range(3))
def test_delong_agrees_with_the_definition(seed):
    first, second = pair(seed, shifts=(0.5, 1.2))
    rounded = scored(first.labels, np.round(first.probabilities[:, 1], 1))
    aucs, error, own = brute_force_delong(rounded, second)
    found = delong_difference(rounded, second)
    assert (found.auc_first, found.auc_second) == pytest.approx(aucs, abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-12)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(aucs[1] - aucs[0]) / error), abs=1e-12)
    assert found.high - found.low == pytest.approx(2 * stats.norm.ppf(0.975) * error, abs=1e-12)
    alone = subject_components([rounded])
    variance = _variance(alone.positive, alone.negative, part=alone)
    assert math.sqrt(variance) == pytest.approx(own[0], abs=1e-12)


def test_structural_components_count_what_they_outrank():
    above, below = structural_components(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
    np.testing.assert_allclose(above, [1.0, 0.75])
    np.testing.assert_allclose(below, [0.75, 1.0])


def test_copies_of_a_volume_add_no_evidence_to_delong():
    first, second = pair(4, shifts=(0.5, 1.2))
    rows = np.tile(np.arange(len(first)), 3)
    alone = delong_difference(first, second)
    tripled = delong_difference(take(first, rows), take(second, rows))
    assert tripled.standard_error == pytest.approx(alone.standard_error, abs=1e-12)
    assert tripled.subjects == alone.subjects == 60


def test_equal_seeds_add_no_evidence_to_delong():
    first, second = pair(4, shifts=(0.5, 1.2))
    alone, seeds = delong_difference(first, second), delong_difference([first] * 3, [second] * 3)
    assert seeds.standard_error == pytest.approx(alone.standard_error, abs=1e-12)


def test_delong_of_a_model_with_itself_is_no_evidence():
    first, _ = pair(5)
    found = delong_difference(first, first)
    assert (found.difference, found.standard_error, found.p_value) == (0, 0, 1)


def test_delong_refuses_three_classes_and_a_lonely_positive():
    with pytest.raises(ScoresError, match="two classes, got 3"):
        delong_difference(*three_class_pair(0))
    lonely = scored([0, 0, 1], [0.1, 0.2, 0.3])
    with pytest.raises(ScoresError, match="two subjects of each class, got 1 positive and 2 negative"):
        delong_difference(lonely, lonely)


def test_mcnemar_reproduces_a_published_example():
    # Fagerland, Lydersen and Laake 2013, table 1 (Bentur et al. 2009): a = 1, b = 1, c = 7, d = 12.
    labels = np.ones(21, dtype=int)
    outcomes = [(1, 1)] * 1 + [(1, 0)] * 1 + [(0, 1)] * 7 + [(0, 0)] * 12
    first, second = (scored(labels, [0.9 if pick[k] else 0.1 for pick in outcomes]) for k in (0, 1))
    found = mcnemar_test(first, second)
    assert (found.both_right, found.only_first, found.only_second, found.both_wrong) == (1, 1, 7, 12)
    assert found.exact_p == pytest.approx(0.0703, abs=5e-5)
    assert found.mid_p == pytest.approx(0.0391, abs=5e-5)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (3, 3), (2, 9), (40, 25)])
def test_mcnemar_agrees_with_the_binomial(only_first, only_second):
    surplus = np.array([-1] * only_first + [1] * only_second + [0] * 5)
    exact, mid = sign_flip_p(surplus)
    n, least = only_first + only_second, min(only_first, only_second)
    assert exact == pytest.approx(stats.binomtest(least, n).pvalue if n else 1.0, abs=1e-10)
    pmf = stats.binom.pmf(least, n, 0.5)
    expected = 1 - 0.5 * pmf if only_first == only_second else 2 * stats.binom.cdf(least, n, 0.5) - pmf
    assert mid == pytest.approx(expected if n else 1.0, abs=1e-10)


def test_sign_flips_of_clusters_agree_with_brute_force():
    surplus = np.array([3, -1, 2, 2, 0, 1, -2])
    sums = [abs(np.dot(signs, surplus)) for signs in product((-1, 1), repeat=len(surplus))]
    exact, mid = sign_flip_p(surplus)
    assert exact == pytest.approx(np.mean([s >= 5 for s in sums]), abs=1e-12)
    assert mid == pytest.approx(np.mean([(s > 5) + 0.5 * (s == 5) for s in sums]), abs=1e-12)


def test_mcnemar_decides_each_model_at_its_own_threshold():
    labels = [0, 0, 1, 1]
    first = scored(labels, [0.1, 0.2, 0.3, 0.4], threshold=0.25)
    second = scored(labels, [0.1, 0.2, 0.3, 0.4])
    found = mcnemar_test(first, second)
    assert (found.both_right, found.only_first) == (2, 2)


def test_rows_in_another_order_are_paired_by_subject_and_item():
    first, second = pair(6, shifts=(0.3, 1.5))
    shuffled = take(second, np.random.default_rng(0).permutation(len(second)))
    assert delong_difference(first, shuffled) == delong_difference(first, second)
    a, b = (bootstrap(first, other, resamples=100)["brier"] for other in (second, shuffled))
    assert a == b


def test_unequal_volumes_labels_classes_and_folds_are_refused():
    first, second = pair(7, volumes=6)
    with pytest.raises(ScoresError, match="only one model has those of s005"):
        delong_difference(first, take(second, range(5)))
    with pytest.raises(ScoresError, match="labels differ between the two models for s000"):
        delong_difference(first, scored([1, 1, 0, 1, 0, 1], second.probabilities[:, 1]))
    other = Scores(first.subjects, first.labels, first.probabilities, ("a", "b"))
    with pytest.raises(ScoresError, match="classes differ: no, yes against a, b"):
        delong_difference(first, other)
    with pytest.raises(ScoresError, match="same folds and seeds, got 2 and 1"):
        bootstrap([first, first], [second])
    doubled = Scores(first.subjects, first.labels, first.probabilities, first.classes, items=["x"] * 6)
    twice = take(doubled, [0, 0, 1, 2, 3, 4, 5])
    with pytest.raises(ScoresError, match="occurs twice"):
        delong_difference(twice, twice)


def test_paired_bootstrap_agrees_with_delong_on_the_error():
    first, second = pair(8, volumes=200, shifts=(0.6, 1.3))
    boot = bootstrap(first, second, resamples=4000)["auc"]
    exact = delong_difference(first, second)
    assert boot.difference == pytest.approx(exact.difference, abs=1e-12)
    assert boot.high - boot.low == pytest.approx(exact.high - exact.low, rel=0.08)


def test_folds_are_averaged_and_the_same_subject_is_drawn_in_every_seed():
    first, second = pair(9, shifts=(0.4, 1.4))
    once = bootstrap(first, second, resamples=200)
    thrice = bootstrap([first] * 3, [second] * 3, resamples=200)
    assert thrice["auc"].low == pytest.approx(once["auc"].low, abs=1e-12)
    halves = [take(first, range(30)), take(first, range(30, 60))]
    mean = np.mean([point_metrics(half)["auc"] for half in halves])
    assert point_metrics(halves)["auc"] == pytest.approx(mean)


def test_planted_difference_is_found_and_the_signs_are_second_minus_first():
    weak, strong = pair(10, volumes=160, shifts=(0.3, 2.5))
    (found,) = compare_models({"weak": weak, "strong": strong}, resamples=500)
    assert found.differences["auc"].low > 0.05
    assert found.delong.p_value < 1e-3
    assert found.mcnemar.only_second > found.mcnemar.only_first
    assert found.mcnemar.mid_p < 0.01
    assert found.differences["auc"].p_value == pytest.approx(2 / 501)
    assert (found.subjects, found.cells) == (160, 1)


def test_three_classes_are_compared_by_the_bootstrap_alone():
    weak, strong = three_class_pair(1)
    (found,) = compare_models({"weak": weak, "strong": strong}, resamples=300)
    assert found.delong is None
    assert "delong" not in found.adjusted
    assert found.differences["auc"].low > 0.1


def test_three_models_are_compared_in_all_pairs_or_with_a_reference():
    a, b = pair(11)
    c, _ = pair(11, shifts=(1.5, 1))
    models = {"a": a, "b": b, "c": c}
    every = compare_models(models, resamples=100)
    assert [(one.first, one.second) for one in every] == [("a", "b"), ("a", "c"), ("b", "c")]
    raw = [one.mcnemar.mid_p for one in every]
    assert [one.adjusted["mcnemar"] for one in every] == pytest.approx(holm(raw))
    against = compare_models(models, reference="b", resamples=100)
    assert [(one.first, one.second) for one in against] == [("b", "a"), ("b", "c")]
    assert set(model_intervals(models, resamples=50)) == {"a", "b", "c"}


def test_errors_name_the_model_the_reference_and_the_metric():
    a, b = pair(12, volumes=10)
    with pytest.raises(ScoresError, match="needs two models, got 1"):
        compare_models({"a": a})
    with pytest.raises(ScoresError, match="reference 'z' is not among the models a, b"):
        compare_models({"a": a, "b": b}, reference="z")
    with pytest.raises(ScoresError, match="metric 'acu' is unknown for a, b: expected one of auc"):
        compare_models({"a": a, "b": b}, primary="acu", resamples=10)


@pytest.mark.parametrize(
    ("raw", "adjusted"),
    [([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]), ([0.5, 0.6], [1.0, 1.0]), ([0.03], [0.03])],
)
def test_holm_steps_down(raw, adjusted):
    assert holm(raw) == pytest.approx(adjusted)


@pytest.mark.parametrize("test", ["delong", "bootstrap", "mcnemar"])
def test_equal_models_are_rarely_told_apart(test):
    rejected = 0
    for seed in range(100):
        first, second = pair(1000 + seed, volumes=100)
        p_value = {
            "delong": lambda a, b: delong_difference(a, b).p_value,
            "bootstrap": lambda a, b: bootstrap(a, b, resamples=200)["auc"].p_value,
            "mcnemar": lambda a, b: mcnemar_test(a, b).mid_p,
        }[test](first, second)
        rejected += p_value < 0.05
    assert rejected <= 12  # binomial(100, 0.05) lies above with chance 0.001


@pytest.mark.slow
@pytest.mark.parametrize("test", ["delong", "bootstrap", "mcnemar"])
def test_equal_models_are_told_apart_in_about_five_percent(test):
    rejected = 0
    for seed in range(1000):
        first, second = pair(seed, volumes=160)
        if test == "bootstrap":
            p_value = bootstrap(first, second, resamples=500)["auc"].p_value
        else:
            p_value = (delong_difference(first, second).p_value, mcnemar_test(first, second).mid_p)[
                test == "mcnemar"
            ]
        rejected += p_value < 0.05
    assert 0.03 <= rejected / 1000 <= 0.075
