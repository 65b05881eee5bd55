"""What `metrics.json` says of scores that leave something undefined: a sentence or null, never a crash."""

import json

import numpy as np
import pytest

from voxlift.app.evaluation.paired import compare_models, summarise_models
from voxlift.app.evaluation.scores import Scores
from voxlift.app.evaluation.verdict import overall_verdict, run_verdict
from voxlift.app.inference.evaluate import decide_threshold, judge_scores


def scored(labels, chance, subjects=None):
    chance = np.asarray(chance, float)
    names = subjects or [f"s{index}" for index in range(len(labels))]
    return Scores(names, labels, np.stack([1 - chance, chance], axis=1), ("no", "yes"))


def drawn(labels):
    p = np.random.default_rng(len(labels)).dirichlet(np.ones(3), len(labels))
    return Scores([f"s{index}" for index in range(len(labels))], labels, p, ("x", "y", "z"))


BOTH = scored([0, 1], [0.1, 0.7])
HARD = {
    "validation lacks a class": (scored([0, 0], [0.1, 0.2]), scored([0, 1, 1], [0.1, 0.6, 0.7])),
    "test lacks a class": (BOTH, scored([1, 1], [0.6, 0.7])),
    "one subject": (BOTH, scored([1], [0.6])),
    "one subject, several volumes": (BOTH, scored([1, 1, 1], [0.6, 0.7, 0.8], ["a", "a", "a"])),
    "all scores tie": (scored([0, 1], [0.5, 0.5]), scored([0, 1, 0, 1], [0.5] * 4)),
    "a subject of two labels": (BOTH, scored([0, 1, 1], [0.6, 0.7, 0.8], ["a", "a", "b"])),
    "certainty": (scored([0, 1], [0.0, 1.0]), scored([0, 1], [1.0, 0.0])),
    "a class absent of three": (drawn([0, 1, 0]), drawn([0, 1, 1, 0])),
    "one class of three": (drawn([0, 0]), drawn([2, 2])),
}


@pytest.mark.parametrize("case", HARD)
def test_hard_cases_are_judged_compared_and_put_into_words(case):
    validation, test = HARD[case]
    block = judge_scores({"val": validation, "test": test})
    json.dumps(block, allow_nan=False)
    assert run_verdict(block["test"], name="m")
    other = Scores(test.subjects, test.labels, np.roll(test.probabilities, 1, axis=0), test.classes)
    for cells, seeds in (([test], None), ([test, test], [0, 1])):
        found = compare_models({"m": cells, "n": [other] * len(cells)}, trainings=seeds, resamples=50)
        assert "beats" not in overall_verdict(found)
        low, high = found[0].differences["auc"].low, found[0].differences["auc"].high
        assert np.isnan(low) or -1 <= low <= high <= 1
    json.dumps(summarise_models({"m": [test]}, resamples=20), allow_nan=False)


def test_a_threshold_comes_with_its_reason():
    assert decide_threshold(BOTH) == (
        pytest.approx(0.4),
        "chosen on validation for the best balanced accuracy",
    )
    threshold, reason = decide_threshold(scored([0, 0], [0.1, 0.2]))
    assert threshold is None
    assert reason.startswith("0.5, since no validation volume of class yes")
    assert decide_threshold(drawn([0, 1, 2]))[0] is None


def test_calibration_is_told_before_and_after_with_intervals():
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    chance = 1 / (1 + np.exp(-6 * (labels - 0.5 + rng.normal(size=80))))
    found = judge_scores({"val": scored(labels, chance), "test": scored(labels, chance[::-1].copy()[::-1])})
    block = found["calibration"]
    assert block["fitted_on"] == "val"
    assert block["temperature"] > 1.5
    before, after = block["test"]["before"], block["test"]["after"]
    assert after["log_loss"] < before["log_loss"]
    assert before["brier"] == found["test"]["brier"]
    assert before["intervals"]["ece"] == found["test"]["intervals"]["ece"]


def test_subjects_with_several_volumes_are_judged_by_their_mean_too():
    test = scored([0, 0, 1, 1], [0.2, 0.6, 0.7, 0.9], ["a", "a", "b", "b"])
    found = judge_scores({"val": BOTH, "test": test})
    assert found["test"]["n"] == 4
    assert found["by_subject"]["test"]["n"] == 2
    assert found["by_subject"]["test"]["brier"] == pytest.approx((0.4**2 + 0.2**2) / 2)
    assert "by_subject" not in judge_scores({"val": BOTH, "test": BOTH})
