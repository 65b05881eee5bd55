from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from score_sets import build_scores
from voxlift.app.evaluation.calibration import (
    Calibration,
    apply_calibration,
    explain_no_calibration,
    fit_calibration,
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
    fitted = fit_calibration(overconfident)
    assert fitted.value.temperature == pytest.approx(3.0, rel=0.12)
    assert fitted.loss_after < fitted.loss_before
    assert fitted.loss_before == pytest.approx(score_metrics(overconfident)["log_loss"], abs=1e-9)
    scaled = apply_calibration(overconfident, fitted.value)
    assert score_metrics(scaled)["log_loss"] == pytest.approx(fitted.loss_after, abs=1e-9)
    assert score_metrics(scaled)["ece"] < 0.5 * score_metrics(overconfident)["ece"]
    assert not fitted.at_bound


def test_no_temperature_nearby_is_better():
    scores = draw_miscalibrated(np.random.default_rng(3).normal(size=(200, 3)), 4, sharpness=2.0)
    best = fit_calibration(scores)
    for factor in (0.99, 1.01):
        nearby = Calibration(best.value.temperature * factor)
        near = score_metrics(apply_calibration(scores, nearby))["log_loss"]
        assert near > best.loss_after


def test_scaling_keeps_the_ranking_and_every_decision():
    scores = with_threshold(draw_miscalibrated(np.random.default_rng(5).normal(size=(99, 2)), 6, 2.0), 0.3)
    scaled = apply_calibration(scores, Calibration(2.5))
    before, after = score_metrics(scores), score_metrics(scaled)
    assert after["auc"] == before["auc"]
    np.testing.assert_array_equal(scaled.decisions, scores.decisions)
    assert after["threshold"] > 0.3
    np.testing.assert_allclose(
        apply_calibration(scores, Calibration()).probabilities, scores.probabilities, atol=1e-12
    )


def test_separated_validation_is_reported_and_zero_probabilities_stay_finite():
    perfect = Scores("abcd", [0, 0, 1, 1], [[1, 0], [0.9, 0.1], [0.2, 0.8], [0, 1]], ("n", "y"))
    fitted = fit_calibration(perfect)
    assert fitted.at_bound
    assert (fitted.value, fitted.loss_after) == (Calibration(), fitted.loss_before)
    assert np.isfinite(apply_calibration(perfect, Calibration(2.0)).probabilities).all()


def test_separated_validation_sharpens_no_probability():
    """Unbounded, the search would end at about 0.1, where rounding does, and give only 0 and 1."""
    sure = Scores("abcd", [0, 0, 1, 1], [[0.999, 0.001], [0.98, 0.02], [0.1, 0.9], [0.01, 0.99]], ("n", "y"))
    assert fit_calibration(sure).value.is_neutral
    one_wrong = replace(sure, labels=np.array([0, 1, 1, 1]))
    assert not fit_calibration(one_wrong).at_bound


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
    assert "separated" in explain_no_calibration(separated)
    level = build_scores(labels, np.where(np.arange(40) % 4 < 2, 0.6, 0.4))
    assert "separated" not in explain_no_calibration(level)
    assert fit_calibration(level).at_bound


def draw_shifted(classes=2):
    """Scores whose log odds are all on one side, so that no temperature helps."""
    rng = np.random.default_rng(9)
    labels = np.arange(300) % classes
    logits = rng.normal(size=(300, classes)) + 0.8 * np.eye(classes)[labels]
    logits[:, 0] += 4.0
    names = [f"s{i}" for i in range(300)]
    return Scores(names, labels, softmax(0.5 * logits, axis=1), [f"c{k}" for k in range(classes)])


def test_a_shifted_prevalence_gets_the_bias_of_logistic_regression():
    scores = draw_shifted()
    fitted = fit_calibration(scores)
    logit = np.log(scores.probabilities[:, 1] / scores.probabilities[:, 0])
    line = LogisticRegression(C=np.inf, tol=1e-10).fit(logit[:, None], scores.labels)
    assert not fitted.at_bound
    assert 1 / fitted.value.temperature == pytest.approx(line.coef_.item(), rel=1e-3)
    negative, positive = fitted.value.bias
    assert positive - negative == pytest.approx(line.intercept_.item(), rel=1e-3)
    scaled = apply_calibration(scores, fitted.value)
    assert score_metrics(scaled)["auc"] == score_metrics(scores)["auc"]
    assert score_metrics(scaled)["log_loss"] == pytest.approx(fitted.loss_after, abs=1e-9)


@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_a_bias_keeps_every_decision_on_two_classes(threshold):
    scores = with_threshold(draw_shifted(), threshold)
    scaled = apply_calibration(scores, fit_calibration(scores).value)
    np.testing.assert_array_equal(scaled.decisions, scores.decisions)


def test_after_a_bias_each_class_is_as_probable_as_it_is_frequent():
    scores = draw_shifted(classes=3)
    fitted = fit_calibration(scores)
    assert len(fitted.value.bias) == 3
    means = apply_calibration(scores, fitted.value).probabilities.mean(axis=0)
    np.testing.assert_allclose(means, 1 / 3, atol=1e-4)
    assert Calibration.from_json(fitted.value.as_json()) == fitted.value
    assert "c2" in fitted.value.describe(scores.classes)
