"""Use of a two-class model against scikit-learn and counts by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from score_sets import build_scores, random_scores, three_class_pair
from voxlift.app.evaluation.clinical_use import decision_curve, evaluate_use, find_useful_range
from voxlift.app.evaluation.scores import with_threshold


def counts(scores, threshold):
    above, positive = scores.probabilities[:, 1] >= threshold, scores.labels == 1
    return [
        int((a & b).sum())
        for a, b in ((above, positive), (above, ~positive), (~above, ~positive), (~above, positive))
    ]


def test_net_benefit_is_that_of_the_counts_beside_all_and_none():
    scores = random_scores(0, 80)
    curve = decision_curve(scores, prevalence=0.5)
    for threshold, model, everyone in zip(
        curve["threshold"], curve["model"], curve["treat_all"], strict=True
    ):
        tp, fp, _, _ = counts(scores, threshold)
        odds = threshold / (1 - threshold)
        assert model == pytest.approx(tp / 80 - fp / 80 * odds, abs=1e-12)
        assert everyone == pytest.approx(0.5 - 0.5 * odds, abs=1e-12)
    assert all(low <= high for low, high in zip(curve["low"], curve["high"], strict=True))
    assert find_useful_range(curve)


def test_likelihood_ratios_and_predictive_values_follow_from_the_counts():
    scores = with_threshold(random_scores(1, 90), 0.4)
    block = evaluate_use(scores, prevalence=0.05, resamples=200)
    tp, fp, tn, fn = counts(scores, 0.4)
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    assert block["lr_positive"] == pytest.approx(sensitivity / (1 - specificity))
    assert block["lr_negative"] == pytest.approx((1 - sensitivity) / specificity)
    odds = 0.05 / 0.95 * block["lr_positive"]  # Bayes: posterior odds = prior odds * likelihood ratio
    assert block["ppv_use"] == pytest.approx(odds / (1 + odds))
    odds = 0.05 / 0.95 * block["lr_negative"]
    assert block["npv_use"] == pytest.approx(1 - odds / (1 + odds))
    own = evaluate_use(scores, resamples=200)
    assert own["ppv_use"] == pytest.approx(tp / (tp + fp))
    assert own["npv_use"] == pytest.approx(tn / (tn + fn))


def test_fixed_operating_points_lie_on_the_curve_of_scikit_learn():
    scores = random_scores(2, 120)
    block = evaluate_use(scores, resamples=100)
    false, true, _ = roc_curve(scores.labels, scores.probabilities[:, 1], drop_intermediate=False)
    for level in (0.8, 0.9, 0.95):
        assert block[f"sensitivity_at_specificity_{level:g}"] == pytest.approx(
            true[1 - false >= level - 1e-12].max()
        )
        assert block[f"specificity_at_sensitivity_{level:g}"] == pytest.approx(
            (1 - false)[true >= level - 1e-12].max()
        )


def test_slope_and_intercept_are_those_of_a_logistic_regression():
    from scipy.optimize import minimize
    from scipy.special import expit, logit

    scores = random_scores(3, 150)
    x, y = logit(scores.probabilities[:, 1]), scores.labels

    def loss(line):
        p = expit(line[0] + line[1] * x)
        return -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum()

    def shifted(line):
        return loss([line[0], 1.0])

    block = evaluate_use(scores, resamples=300)
    assert block["calibration_slope"] == pytest.approx(minimize(loss, [0, 1]).x[1], abs=1e-3)
    assert block["calibration_intercept"] == pytest.approx(minimize(shifted, [0]).x[0], abs=1e-3)
    for name, pair in block["intervals"].items():
        assert pair[0] <= block[name] <= pair[1], name


def test_intervals_come_from_whole_subjects():
    one = random_scores(4, 60)
    doubled = build_scores(
        np.tile(one.labels, 2), np.tile(one.probabilities[:, 1], 2), subjects=[*one.subjects, *one.subjects]
    )
    first, second = evaluate_use(one, resamples=200), evaluate_use(doubled, resamples=200)
    assert first["intervals"]["ppv_use"] == pytest.approx(second["intervals"]["ppv_use"])


def test_without_two_classes_there_is_no_use():
    assert evaluate_use(three_class_pair(0)[0]) == {}
    assert evaluate_use(build_scores([1, 1, 1], [0.2, 0.5, 0.7])) == {}


def test_folds_and_seeds_are_averaged_at_their_own_thresholds():
    fits = [with_threshold(random_scores(seed, 80), threshold) for seed, threshold in ((3, 0.4), (4, 0.6))]
    block = evaluate_use(fits, prevalence=0.2, resamples=100)
    singles = [evaluate_use(fit, prevalence=0.2, resamples=100) for fit in fits]
    for name in ("lr_positive", "ppv_use", "calibration_slope", "sensitivity_at_specificity_0.9"):
        assert block[name] == pytest.approx(np.mean([one[name] for one in singles]))
        low, high = block["intervals"][name]
        assert low <= block[name] <= high
    curves = [one["decision_curve"]["model"] for one in singles]
    np.testing.assert_allclose(block["decision_curve"]["model"], np.mean(curves, axis=0))
    assert block["threshold"] is None
