"""Scores of other subjects beside the run's own: differences, thresholds, calibration, range."""

import math

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from voxlift.app.evaluation.delong import delong_unpaired
from voxlift.app.evaluation.external import (
    describe_threshold,
    draw_part,
    evaluate_external,
    evaluate_range,
    recalibrate,
    summarise_calibration,
    unpaired_differences,
)
from voxlift.app.evaluation.scores import Scores, select_rows, with_threshold


def draw_scores(n, *, separation=1.5, seed=0, shift=0.0, classes=2, volumes=1):
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, classes, n), volumes)
    logits = rng.normal(0, 1, (n * volumes, classes))
    logits[np.arange(n * volumes), labels] += separation
    logits[:, -1] += shift
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    subjects = [f"{seed}-{i}" for i in range(n) for _ in range(volumes)]
    return Scores(
        subjects, labels, p, [f"c{k}" for k in range(classes)], [f"{seed}/{i}" for i in range(n * volumes)]
    )


def delong_variance(scores):
    """DeLong's variance from its definition, with a loop over all pairs."""
    p, y = scores.probabilities[:, 1], scores.labels
    positive, negative = p[y == 1], p[y == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    return wins.mean(1).var(ddof=1) / len(positive) + wins.mean(0).var(ddof=1) / len(negative)


def test_the_difference_of_aucs_has_the_sum_of_both_variances():
    internal, external = draw_scores(90, seed=1), draw_scores(60, seed=2, separation=0.5)
    found = delong_unpaired(internal, external)
    one, other = (roc_auc_score(own.labels, own.probabilities[:, 1]) for own in (internal, external))
    error = math.sqrt(delong_variance(internal) + delong_variance(external))
    assert found.difference == pytest.approx(other - one)
    assert found.standard_error == pytest.approx(error)
    assert (found.low, found.high) == pytest.approx(
        (other - one - 1.959964 * error, other - one + 1.959964 * error)
    )
    assert found.p_value == pytest.approx(2 * norm.sf(abs(other - one) / error))


def test_metrics_without_a_formula_have_the_intervals_of_two_bootstraps():
    internal, external = draw_scores(120, seed=1), draw_scores(150, seed=2, separation=0.2)
    found = unpaired_differences([internal], [external], resamples=2000)
    assert found["auc"]["method"].startswith("DeLong")
    rates = [own.decisions[own.labels == 1].mean() for own in (internal, external)]
    counts = [(own.labels == 1).sum() for own in (internal, external)]
    error = math.sqrt(sum(rate * (1 - rate) / count for rate, count in zip(rates, counts, strict=True)))
    one = found["sensitivity"]
    assert one["difference"] == pytest.approx(rates[1] - rates[0])
    assert one["low"] == pytest.approx(rates[1] - rates[0] - 1.96 * error, abs=0.02)
    assert one["high"] == pytest.approx(rates[1] - rates[0] + 1.96 * error, abs=0.02)


def test_several_classes_are_compared_by_bootstrap():
    found = unpaired_differences(
        [draw_scores(90, classes=3)], [draw_scores(90, classes=3, seed=1)], resamples=100
    )
    assert found["auc"]["method"].startswith("two bootstraps")
    assert "sensitivity" in found


def test_the_threshold_is_carried_over_and_the_own_one_is_the_best_of_all():
    scores = draw_scores(80, shift=2.0)
    found = describe_threshold(scores, 0.3)
    assert found["carried_over"]["threshold"] == 0.3
    p, y = scores.probabilities[:, 1], scores.labels
    assert found["carried_over"]["sensitivity"] == pytest.approx((p[y == 1] >= 0.3).mean())
    best = max((((p[y == 1] >= t).mean() + (p[y == 0] < t).mean()) / 2) for t in np.append(p, [0, 1]))
    assert found["own"]["balanced_accuracy"] == pytest.approx(best)


def test_calibration_in_the_large_is_zero_after_recalibration_of_a_constant_shift():
    rng = np.random.default_rng(0)
    true = expit(rng.normal(0, 1.5, 4000))
    y = (rng.random(4000) < true).astype(int)
    shifted = expit(logit(true) + 1.0)
    scores = Scores([f"s{i}" for i in range(4000)], y, np.stack([1 - shifted, shifted], 1), ("a", "b"))
    before = summarise_calibration(scores, resamples=100)
    assert before["calibration_intercept"] == pytest.approx(-1.0, abs=0.12)
    assert before["calibration_slope"] == pytest.approx(1.0, abs=0.1)
    low, high = before["intervals"]["prevalence"]
    error = 1.96 * math.sqrt(y.mean() * (1 - y.mean()) / 4000)
    assert (low, high) == pytest.approx((y.mean() - error, y.mean() + error), abs=0.006)
    found = recalibrate(scores, 0.3, resamples=100)
    assert found["intercept"] == pytest.approx(-1.0, abs=0.15)
    assert abs(found["after"]["calibration_intercept"]) < 0.2 < abs(found["before"]["calibration_intercept"])
    assert found["after"]["brier"] < found["before"]["brier"]


def test_the_part_of_a_recalibration_is_a_share_of_the_subjects_of_each_class():
    scores = draw_scores(100, volumes=2)
    is_part = draw_part(scores, 0.3, seed=0)
    part, rest = (select_rows(scores, np.flatnonzero(rows)) for rows in (is_part, ~is_part))
    assert not set(part.subjects) & set(rest.subjects)
    for label in (0, 1):
        assert (part.labels == label).sum() / (scores.labels == label).sum() == pytest.approx(0.3, abs=0.02)
    found = recalibrate(scores, 0.3, resamples=50)
    assert (found["fitted_on_subjects"], found["scored_subjects"]) == (
        len(set(part.subjects)),
        len(set(rest.subjects)),
    )


def test_several_classes_are_recalibrated_by_a_temperature():
    scores = draw_scores(300, classes=3, separation=1.0)
    sharp = Scores(
        scores.subjects,
        scores.labels,
        (q := scores.probabilities**4) / q.sum(1, keepdims=True),
        scores.classes,
    )
    found = recalibrate(sharp, 0.5, resamples=20)
    assert found["temperature"] > 2
    assert found["after"]["log_loss"] < found["before"]["log_loss"]


def test_the_score_without_unusual_scans_is_that_of_the_others():
    scores = draw_scores(60)
    warnings = ["spacing" if i % 3 == 0 else "" for i in range(60)]
    found = evaluate_range(scores, warnings, threshold=0.5, resamples=50)
    kept = np.arange(60) % 3 != 0
    assert found["outside"] == 20
    assert found["inside"]["auc"] == pytest.approx(
        roc_auc_score(scores.labels[kept], scores.probabilities[kept, 1])
    )
    assert found["only_outside"]["n"] == 20


def test_the_whole_is_that_of_its_parts_and_json():
    internal, external = with_threshold(draw_scores(50, seed=1), 0.4), draw_scores(50, seed=2)
    found = evaluate_external(
        external, [internal], warnings=[""] * 50, threshold=0.4, recalibrated_part=0.4, resamples=50
    )
    assert found["external"]["threshold"] == 0.4
    assert found["difference"]["sensitivity"]["external"] == pytest.approx(found["external"]["sensitivity"])
    assert found["training_range"] == {"volumes": 50, "outside": 0}
    assert found["recalibration"]["fraction"] == 0.4
