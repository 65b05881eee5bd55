"""The calibration line: against scikit-learn's logistic regression, and what recalibration restores."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from voxlift.app.evaluation.calibration_line import apply_line, fit_line, line_draws
from voxlift.app.evaluation.scores import Scores, ScoresError


def draw_scores(n=400, *, intercept=0.4, slope=0.5, seed=0):
    """Scores whose true log odds are `intercept + slope * logit(predicted)`."""
    rng = np.random.default_rng(seed)
    predicted = expit(rng.normal(0, 2, n))
    labels = (rng.random(n) < expit(intercept + slope * logit(predicted))).astype(int)
    return Scores(
        [f"s{i}" for i in range(n)],
        labels,
        np.stack([1 - predicted, predicted], 1),
        ("a", "b"),
        threshold=0.3,
    )


def test_the_line_is_the_logistic_regression_of_scikit_learn():
    scores = draw_scores()
    x = logit(scores.probabilities[:, 1])[:, None]
    for weights in (np.ones(len(scores)), np.random.default_rng(1).integers(0, 4, len(scores)).astype(float)):
        oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
            x, scores.labels, sample_weight=weights
        )
        draws = line_draws(scores, weights[None])
        assert draws["line_intercept"][0] == pytest.approx(oracle.intercept_[0], abs=1e-4)
        assert draws["calibration_slope"][0] == pytest.approx(oracle.coef_[0, 0], abs=1e-4)


def test_calibration_in_the_large_makes_predicted_and_observed_frequency_equal():
    scores = draw_scores()
    x = logit(scores.probabilities[:, 1])
    oracle = brentq(lambda a: expit(a + x).mean() - scores.labels.mean(), -5, 5)
    draws = line_draws(scores, np.ones((1, len(scores))))
    assert draws["calibration_intercept"][0] == pytest.approx(oracle, abs=1e-7)
    assert draws["prevalence"][0] == pytest.approx(scores.labels.mean())
    assert draws["mean_predicted"][0] == pytest.approx(scores.probabilities[:, 1].mean())


def test_recalibrated_scores_have_slope_one_and_the_same_decisions():
    scores = draw_scores(slope=0.3)
    moved = apply_line(scores, fit_line(scores))
    again = fit_line(moved)
    assert (again.intercept, again.slope) == pytest.approx((0, 1), abs=1e-6)
    np.testing.assert_array_equal(moved.decisions, scores.decisions)


def test_separated_classes_and_a_single_class_have_no_slope():
    p = np.array([0.1, 0.2, 0.8, 0.9])
    for labels in ([0, 0, 1, 1], [1, 1, 1, 1]):
        scores = Scores("abcd", labels, np.stack([1 - p, p], 1), ("a", "b"))
        assert np.isnan(line_draws(scores, np.ones((1, 4)))["calibration_slope"][0])
        with pytest.raises(ScoresError):
            fit_line(scores)
