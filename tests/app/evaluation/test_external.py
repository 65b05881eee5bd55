"""Scores of other subjects beside the run's own: differences, thresholds, calibration, range."""

import math

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import linregress, norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from voxlift.app.evaluation.delong import delong_unpaired
from voxlift.app.evaluation.external import (
    compare_thresholds,
    evaluate_external,
    evaluate_range,
    unpaired_differences,
)
from voxlift.app.evaluation.findings import Findings
from voxlift.app.evaluation.grades import Grades, cut_scores
from voxlift.app.evaluation.numbers import Numbers
from voxlift.app.evaluation.recalibration import draw_part, recalibrate, summarise_calibration
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
    found = compare_thresholds(with_threshold(scores, 0.3))["c1"]
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


def test_the_interval_of_the_slope_is_about_walds():
    scores = draw_scores(600, separation=1.0, seed=4)
    block = summarise_calibration(scores)
    x = logit(scores.probabilities[:, 1])
    fitted = LogisticRegression(C=1e9).fit(x[:, None], scores.labels)
    slope = fitted.coef_[0, 0]
    p = fitted.predict_proba(x[:, None])[:, 1]
    design = np.stack([np.ones(600), x])
    error = math.sqrt(np.linalg.inv((design * (p * (1 - p))) @ design.T)[1, 1])  # inverse Fisher information
    assert block["calibration_slope"] == pytest.approx(slope, rel=1e-3)
    low, high = block["intervals"]["calibration_slope"]
    assert (low, high) == pytest.approx((slope - 1.96 * error, slope + 1.96 * error), rel=0.1)


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
    found = evaluate_range(scores, warnings, resamples=50)
    kept = np.arange(60) % 3 != 0
    assert found["outside"] == 20
    assert found["inside"]["auc"] == pytest.approx(
        roc_auc_score(scores.labels[kept], scores.probabilities[kept, 1])
    )
    assert found["only_outside"]["n"] == 20


def test_the_whole_is_that_of_its_parts_and_json():
    internal, external = (with_threshold(draw_scores(50, seed=seed), 0.4) for seed in (1, 2))
    found = evaluate_external(external, [internal], warnings=[""] * 50, recalibrated_part=0.4, resamples=50)
    assert found["external"]["threshold"] == 0.4
    assert found["difference"]["sensitivity"]["external"] == pytest.approx(found["external"]["sensitivity"])
    assert found["training_range"] == {"volumes": 50, "outside": 0}
    assert found["recalibration"]["fraction"] == 0.4


def draw_findings(n, *, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 2))
    labels = (rng.random((n, 2)) < expit(logits)).astype(float)
    labels[::7, 1] = np.nan
    return Findings(
        [f"{seed}-{i}" for i in range(n)],
        labels,
        expit(logits + shift),
        ("bleed", "fracture"),
        thresholds=(0.3, 0.6),
    )


def draw_numbers(n, *, seed=0, slope=1.0, offset=0.0, noise=1.0):
    rng = np.random.default_rng(seed)
    values = rng.normal(50, 10, n)
    labels = slope * values + offset + rng.normal(0, noise, n)
    return Numbers([f"{seed}-{i}" for i in range(n)], labels, values, training_mean=50, training_median=50)


def test_each_finding_has_the_unpaired_difference_thresholds_and_recalibration_of_its_known_cells():
    internal, external = draw_findings(150, seed=1), draw_findings(200, seed=2, shift=1.2)
    found = evaluate_external(external, [internal], warnings=[""] * 200, recalibrated_part=0.4, resamples=200)
    for index, name in enumerate(internal.names):
        own, other = internal.finding(index), external.finding(index)
        one = found["difference"][f"auc[{name}]"]
        error = math.sqrt(delong_variance(own) + delong_variance(other))
        aucs = [roc_auc_score(part.labels, part.probabilities[:, 1]) for part in (own, other)]
        assert one["difference"] == pytest.approx(aucs[1] - aucs[0])
        assert (one["high"] - one["low"]) / 2 == pytest.approx(1.959964 * error)
        carried = found["threshold_comparison"][name]["carried_over"]
        assert carried["threshold"] == (0.3, 0.6)[index]
        assert carried["sensitivity"] == pytest.approx(other.decisions[other.labels == 1].mean())
        before, after = (found["recalibration"][key]["outcomes"][name] for key in ("before", "after"))
        assert before["calibration_intercept"] < -0.7
        assert abs(after["calibration_intercept"]) < abs(before["calibration_intercept"]) - 0.3
        part = select_rows(external, np.flatnonzero(draw_part(external, 0.4, seed=0))).finding(index)
        line = LogisticRegression(C=1e9).fit(logit(part.probabilities[:, 1:]), part.labels)
        fitted = found["recalibration"]["outcomes"][name]
        assert fitted["slope"] == pytest.approx(line.coef_[0, 0], abs=1e-3)
        assert fitted["intercept"] == pytest.approx(line.intercept_[0], abs=1e-3)
    assert found["difference"]["auc"]["method"].startswith("two bootstraps")


def test_numbers_are_recalibrated_by_the_least_squares_line_of_a_part():
    internal, external = draw_numbers(120, seed=1), draw_numbers(300, seed=2, slope=0.5, offset=10)
    found = evaluate_external(external, [internal], warnings=[""] * 300, recalibrated_part=0.3, resamples=200)
    is_part = draw_part(external, 0.3, seed=0)
    part, rest = (select_rows(external, np.flatnonzero(rows)) for rows in (is_part, ~is_part))
    line = linregress(part.values, part.labels)
    fitted = found["recalibration"]
    assert (fitted["slope"], fitted["intercept"]) == pytest.approx((line.slope, line.intercept))
    corrected = line.intercept + line.slope * rest.values
    assert fitted["after"]["mae"] == pytest.approx(np.abs(corrected - rest.labels).mean())
    assert fitted["after"]["mae"] < fitted["before"]["mae"] / 3
    own = linregress(external.values, external.labels)
    calibration = found["calibration_external"]
    assert calibration["calibration_slope"] == pytest.approx(own.slope)
    low, high = calibration["intervals"]["calibration_slope"]
    assert (high - low) / 2 == pytest.approx(1.96 * own.stderr, rel=0.25)
    maes = [np.abs(one.errors).mean() for one in (internal, external)]
    assert found["difference"]["mae"]["difference"] == pytest.approx(maes[1] - maes[0])
    spread = [np.abs(one.errors).std(ddof=1) / math.sqrt(len(one)) for one in (internal, external)]
    half = (found["difference"]["mae"]["high"] - found["difference"]["mae"]["low"]) / 2
    assert half == pytest.approx(1.96 * math.hypot(*spread), rel=0.15)
    assert "threshold_comparison" not in found


def test_grades_are_compared_by_kappa_and_by_the_auc_of_each_cut():
    grades = [
        Grades(one.subjects, one.labels, one.probabilities, one.classes)
        for one in (draw_scores(150, classes=4, seed=1), draw_scores(150, classes=4, seed=2))
    ]
    found = evaluate_external(
        grades[1], [grades[0]], warnings=[""] * 150, recalibrated_part=0.5, resamples=200
    )
    kappas = [cohen_kappa_score(one.labels, one.decisions, weights="quadratic") for one in grades]
    assert found["difference"]["kappa_quadratic"]["difference"] == pytest.approx(kappas[1] - kappas[0])
    cuts = [cut_scores(one, 1) for one in grades]
    error = math.sqrt(sum(map(delong_variance, cuts)))
    one = found["difference"]["auc[>c1]"]
    assert (one["high"] - one["low"]) / 2 == pytest.approx(1.959964 * error)
    assert set(found["calibration_external"]["outcomes"]) == {">c0", ">c1", ">c2"}
    assert found["recalibration"]["temperature"] > 0
    assert "threshold_comparison" not in found


def test_a_part_too_small_to_recalibrate_on_is_a_sentence():
    scores = draw_scores(8, separation=9.0)
    found = evaluate_external(scores, [], warnings=[""] * 8, recalibrated_part=0.3, resamples=20)
    assert found["recalibration"]["problem"]
    assert "after" not in found["recalibration"]
