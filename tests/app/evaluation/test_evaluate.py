"""The content of `metrics.json`; undefined values come with a reason or as null, and never crash."""

import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from score_sets import build_scores
from voxlift.app.evaluation.bootstrap import summarise_models
from voxlift.app.evaluation.evaluate import choose_threshold, choose_validation_threshold, evaluate_splits
from voxlift.app.evaluation.paired import compare_models
from voxlift.app.evaluation.scores import Scores, ScoresError
from voxlift.app.evaluation.verdict import decide, overall_verdict, run_verdict


def three_class_scores(labels):
    p = np.random.default_rng(len(labels)).dirichlet(np.ones(3), len(labels))
    return Scores([f"s{index}" for index in range(len(labels))], labels, p, ("x", "y", "z"))


BOTH = build_scores([0, 1], [0.1, 0.7])
DEGENERATE = {
    "validation lacks a class": (build_scores([0, 0], [0.1, 0.2]), build_scores([0, 1, 1], [0.1, 0.6, 0.7])),
    "test lacks a class": (BOTH, build_scores([1, 1], [0.6, 0.7])),
    "one subject": (BOTH, build_scores([1], [0.6])),
    "one subject, several volumes": (BOTH, build_scores([1, 1, 1], [0.6, 0.7, 0.8], ["a", "a", "a"])),
    "all scores tie": (build_scores([0, 1], [0.5, 0.5]), build_scores([0, 1, 0, 1], [0.5] * 4)),
    "a subject of two labels": (BOTH, build_scores([0, 1, 1], [0.6, 0.7, 0.8], ["a", "a", "b"])),
    "certainty": (build_scores([0, 1], [0.0, 1.0]), build_scores([0, 1], [1.0, 0.0])),
    "a class absent of three": (three_class_scores([0, 1, 0]), three_class_scores([0, 1, 1, 0])),
    "one class of three": (three_class_scores([0, 0]), three_class_scores([2, 2])),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_scores_are_evaluated_compared_and_described(case):
    validation, test = DEGENERATE[case]
    metrics = evaluate_splits({"val": validation, "test": test})
    json.dumps(metrics, allow_nan=False)
    assert run_verdict(metrics["test"], name="m")
    other = Scores(test.subjects, test.labels, np.roll(test.probabilities, 1, axis=0), test.classes)
    for fits, seeds in (([test], None), ([test, test], [0, 1])):
        (found,) = compare_models({"m": fits, "n": [other] * len(fits)}, fit_seeds=seeds, resamples=50)
        assert decide(found).verdict not in {"better", "worse"}
        assert overall_verdict([found])
        low, high = found.differences["auc"].low, found.differences["auc"].high
        assert np.isnan(low) or -1 <= low <= high <= 1
    json.dumps(summarise_models({"m": [test]}, resamples=20), allow_nan=False)


def test_calibration_is_reported_before_and_after_with_intervals():
    labels = np.arange(80) % 2
    p_yes = 1 / (1 + np.exp(-6 * (labels - 0.5 + np.random.default_rng(0).normal(size=80))))
    metrics = evaluate_splits({"val": build_scores(labels, p_yes), "test": build_scores(labels, p_yes)})
    block = metrics["calibration"]
    assert block["fitted_on"] == "val"
    assert block["temperature"] > 1.5
    before, after = block["test"]["before"], block["test"]["after"]
    assert after["log_loss"] < before["log_loss"]
    assert before["brier"] == metrics["test"]["brier"]
    assert before["intervals"]["ece"] == metrics["test"]["intervals"]["ece"]
    low, high = after["intervals"]["ece"]
    assert low < after["ece"] < high


def test_subjects_with_several_volumes_are_evaluated_by_their_mean_too():
    test = build_scores([0, 0, 1, 1], [0.2, 0.6, 0.7, 0.9], ["a", "a", "b", "b"])
    metrics = evaluate_splits({"val": BOTH, "test": test})
    assert metrics["test"]["n"] == 4
    assert metrics["by_subject"]["test"]["n"] == 2
    assert metrics["by_subject"]["test"]["brier"] == pytest.approx((0.4**2 + 0.2**2) / 2)
    assert "by_subject" not in evaluate_splits({"val": BOTH, "test": BOTH})


def test_a_threshold_comes_with_its_reason():
    threshold, reason = choose_validation_threshold(BOTH)
    assert threshold == pytest.approx(0.4)
    assert "balanced accuracy" in reason
    threshold, reason = choose_validation_threshold(build_scores([0, 0], [0.1, 0.2]))
    assert threshold is None
    assert reason.startswith("0.5")
    assert "yes" in reason
    assert choose_validation_threshold(three_class_scores([0, 1, 2]))[0] is None


def test_no_other_threshold_has_a_better_balanced_accuracy_on_validation():
    rng = np.random.default_rng(2)
    labels = (rng.random(80) < 0.3).astype(int)
    p_yes = np.clip(0.3 + 0.15 * labels + 0.12 * rng.normal(size=80), 0, 1)
    chosen = choose_threshold(build_scores(labels, p_yes))
    value = {t: balanced_accuracy_score(labels, (p_yes >= t).astype(int)) for t in [chosen, *p_yes, 1.1]}
    assert value[chosen] == pytest.approx(max(value.values()))


def test_a_gap_between_the_classes_is_cut_in_its_middle():
    assert choose_threshold(build_scores([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])) == pytest.approx(0.5)
    assert choose_threshold(build_scores([0, 0, 1, 1], [0.01, 0.02, 0.06, 0.07])) == pytest.approx(0.04)


def test_a_threshold_needs_exactly_two_classes_both_present():
    with pytest.raises(ScoresError, match="class yes"):
        choose_threshold(build_scores([0, 0], [0.1, 0.2]))
    with pytest.raises(ScoresError, match="3"):
        choose_threshold(three_class_scores([0]))
