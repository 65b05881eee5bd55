from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from score_sets import build_scores
from voxlift.app.evaluation.calibration import (
    apply_temperature,
    explain_no_temperature,
    fit_temperature,
    reliability_bins,
    wilson_interval,
)
from voxlift.app.evaluation.metrics import score_metrics
from voxlift.app.evaluation.scores import Scores, with_threshold


def draw_miscalibrated(logits, seed, sharpness):
    """Labels drawn from softmax(logits), with the probabilities softmax(sharpness * logits)."""
    true = softmax(logits, axis=1)
    rng = np.random.default_rng(seed)
    labels = (rng.random((len(true), 1)) > np.cumsum(true, axis=1)).sum(axis=1)
    names = [f"s{i}" for i in range(len(true))]
    classes = [f"c{k}" for k in range(true.shape[1])]
    return Scores(names, labels, softmax(sharpness * logits, axis=1), classes)


@pytest.mark.parametrize("classes", [2, 4])
def test_temperature_recovers_a_planted_overconfidence(classes):
    logits = np.random.default_rng(1).normal(size=(4000, classes))
    overconfident = draw_miscalibrated(logits, 2, sharpness=3.0)
    fitted = fit_temperature(overconfident)
    assert fitted.value == pytest.approx(3.0, rel=0.12)
    assert fitted.loss_after < fitted.loss_before
    assert fitted.loss_before == pytest.approx(score_metrics(overconfident)["log_loss"], abs=1e-9)
    scaled = apply_temperature(overconfident, fitted.value)
    assert score_metrics(scaled)["log_loss"] == pytest.approx(fitted.loss_after, abs=1e-9)
    assert score_metrics(scaled)["ece"] < 0.5 * score_metrics(overconfident)["ece"]
    assert not fitted.at_bound


def test_no_temperature_nearby_is_better():
    scores = draw_miscalibrated(np.random.default_rng(3).normal(size=(200, 3)), 4, sharpness=2.0)
    best = fit_temperature(scores)
    for factor in (0.99, 1.01):
        near = score_metrics(apply_temperature(scores, best.value * factor))["log_loss"]
        assert near > best.loss_after


def test_scaling_keeps_the_ranking_and_every_decision():
    scores = with_threshold(draw_miscalibrated(np.random.default_rng(5).normal(size=(99, 2)), 6, 2.0), 0.3)
    scaled = apply_temperature(scores, 2.5)
    before, after = score_metrics(scores), score_metrics(scaled)
    assert after["auc"] == before["auc"]
    np.testing.assert_array_equal(scaled.decisions, scores.decisions)
    assert after["threshold"] > 0.3
    np.testing.assert_allclose(apply_temperature(scores, 1.0).probabilities, scores.probabilities, atol=1e-12)


def test_separated_validation_is_reported_and_zero_probabilities_stay_finite():
    perfect = Scores("abcd", [0, 0, 1, 1], [[1, 0], [0.9, 0.1], [0.2, 0.8], [0, 1]], ("n", "y"))
    fitted = fit_temperature(perfect)
    assert fitted.at_bound
    assert (fitted.value, fitted.loss_after) == (1.0, fitted.loss_before)
    assert np.isfinite(apply_temperature(perfect, 2.0).probabilities).all()


def test_separated_validation_sharpens_no_probability():
    """Unbounded, the search would end at about 0.1, where rounding does, and give only 0 and 1."""
    sure = Scores("abcd", [0, 0, 1, 1], [[0.999, 0.001], [0.98, 0.02], [0.1, 0.9], [0.01, 0.99]], ("n", "y"))
    assert fit_temperature(sure).value == 1.0
    one_wrong = replace(sure, labels=np.array([0, 1, 1, 1]))
    assert not fit_temperature(one_wrong).at_bound


def test_bins_agree_with_scikit_learn_and_lose_no_volume():
    scores = draw_miscalibrated(np.random.default_rng(7).normal(size=(150, 2)), 8, 1.5)
    found = reliability_bins(scores)
    observed, predicted = calibration_curve(scores.labels, scores.probabilities[:, 1], n_bins=10)
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.predicted, predicted)
    assert found.counts.sum() == 150
    gap = (np.abs(found.observed - found.predicted) * found.counts).sum() / 150
    assert gap == pytest.approx(score_metrics(scores)["ece"])


def test_wilson_interval_agrees_with_scipy():
    successes, trials = np.array([0.0, 3, 10]), np.array([5.0, 8, 10])
    low, high = wilson_interval(successes, trials)
    for index in range(3):
        exact = stats.binomtest(int(successes[index]), int(trials[index])).proportion_ci(method="wilson")
        assert (low[index], high[index]) == pytest.approx((exact.low, exact.high), abs=1e-10)


def test_the_reason_without_a_temperature_is_named():
    labels = np.arange(40) % 2
    separated = build_scores(labels, 0.1 + 0.8 * labels)
    assert "separated" in explain_no_temperature(separated)
    low = np.where(labels == 1, 0.30, 0.20) + np.linspace(-0.1, 0.1, 40)
    shifted = build_scores(labels, low)
    assert "0.75" in explain_no_temperature(shifted)
    assert "0.50" in explain_no_temperature(shifted)
    level = build_scores(labels, np.where(np.arange(40) % 4 < 2, 0.6, 0.4))
    assert "prevalence" not in explain_no_temperature(level)
