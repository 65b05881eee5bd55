from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as oracle

from score_sets import build_scores
from voxlift.app.evaluation.bootstrap import bootstrap_intervals
from voxlift.app.evaluation.metric_names import headline_metrics
from voxlift.app.evaluation.metrics import metric_draws, score_metrics
from voxlift.app.evaluation.scores import Scores, average_by_subject, select_rows, with_threshold


def random_scores(seed, classes, volumes=97, *, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=volumes)
    logits = rng.normal(size=(volumes, classes)) + 0.8 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if ties:
        probabilities[:, 1] = np.round(probabilities[:, 1], 1)
        probabilities[:, 0] = 1 - probabilities[:, 1]
    subjects = [f"s{index:03d}" for index in range(volumes)]
    return Scores(subjects, labels, probabilities, [f"c{k}" for k in range(classes)])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.37])
def test_two_classes_agree_with_scikit_learn(ties, threshold):
    scores = random_scores(3, 2, ties=ties)
    found = score_metrics(scores, threshold=threshold)
    y, p = scores.labels, scores.probabilities[:, 1]
    decided = (p >= threshold).astype(int)
    expected = {
        "auc": oracle.roc_auc_score(y, p),
        "average_precision": oracle.average_precision_score(y, p),
        "accuracy": oracle.accuracy_score(y, decided),
        "balanced_accuracy": oracle.balanced_accuracy_score(y, decided),
        "sensitivity": oracle.recall_score(y, decided),
        "specificity": oracle.recall_score(y, decided, pos_label=0),
        "ppv": oracle.precision_score(y, decided),
        "npv": oracle.precision_score(y, decided, pos_label=0),
        "f1": oracle.f1_score(y, decided),
        "mcc": oracle.matthews_corrcoef(y, decided),
        "log_loss": oracle.log_loss(y, scores.probabilities),
        "brier": oracle.brier_score_loss(y, p),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-10)
    assert found["n"] == 97
    assert found["threshold"] == threshold


def test_several_classes_agree_with_scikit_learn():
    scores = random_scores(4, 4)
    found = score_metrics(scores)
    y, p = scores.labels, scores.probabilities
    decided = p.argmax(axis=1)
    onehot = np.eye(4)[y]
    expected = {
        "auc": oracle.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "auc[c2]": oracle.roc_auc_score(y == 2, p[:, 2]),
        "average_precision": oracle.average_precision_score(onehot, p, average="macro"),
        "accuracy": oracle.accuracy_score(y, decided),
        "balanced_accuracy": oracle.balanced_accuracy_score(y, decided),
        "ppv": oracle.precision_score(y, decided, average="macro"),
        "f1": oracle.f1_score(y, decided, average="macro"),
        "f1[c1]": oracle.f1_score(y, decided, average=None)[1],
        "mcc": oracle.matthews_corrcoef(y, decided),
        "log_loss": oracle.log_loss(y, p),
        "brier": ((p - onehot) ** 2).sum(axis=1).mean(),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-10)
    assert found["sensitivity"] == pytest.approx(found["balanced_accuracy"])
    assert "threshold" not in found


def test_class_that_is_never_decided_costs_precision_as_in_scikit_learn():
    probabilities = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.6, 0.3, 0.1]]
    scores = Scores("abcd", [0, 1, 2, 0], probabilities, ("x", "y", "z"))
    decided = np.argmax(probabilities, axis=1)
    found = score_metrics(scores)
    expected = oracle.precision_score([0, 1, 2, 0], decided, average="macro", zero_division=0)
    assert found["ppv"] == pytest.approx(expected)
    assert np.isnan(found["ppv[z]"])


def test_calibration_error_is_the_mean_gap_between_outcome_and_prediction():
    scores = build_scores([0, 1, 1, 1, 0], [0.05, 0.05, 0.95, 0.95, 0.95])
    # Two of five volumes at 0.05 with outcome 1/2, three at 0.95 with outcome 2/3.
    expected = 0.4 * (0.5 - 0.05) + 0.6 * (0.95 - 2 / 3)
    assert score_metrics(scores)["ece"] == pytest.approx(expected)


def test_other_threshold_than_half_reports_both_accuracies():
    scores = with_threshold(random_scores(5, 2), 0.8)
    found, half = score_metrics(scores), score_metrics(scores, threshold=0.5)
    assert found["accuracy@0.5"] == half["accuracy"]
    assert found["balanced_accuracy@0.5"] == half["balanced_accuracy"]
    assert found["accuracy"] != half["accuracy"]
    assert "accuracy@0.5" not in half


@pytest.mark.parametrize("classes", [2, 3])
def test_order_of_rows_does_not_matter(classes):
    scores = random_scores(6, classes)
    shuffled = select_rows(scores, np.random.default_rng(0).permutation(len(scores)))
    assert score_metrics(shuffled) == pytest.approx(score_metrics(scores), abs=1e-12)


def test_single_class_has_no_auc_but_an_accuracy():
    found = score_metrics(build_scores([1, 1], [0.8, 0.4]))
    assert np.isnan(found["auc"])
    assert np.isnan(found["specificity"])
    assert found["accuracy"] == 0.5


def test_average_by_subject_takes_the_mean_probability():
    scores = Scores("bab", [1, 0, 1], [[0.2, 0.8], [0.9, 0.1], [0.6, 0.4]], ("no", "yes"))
    averaged = average_by_subject(scores)
    assert averaged.subjects == ("a", "b")
    assert averaged.labels.tolist() == [0, 1]
    np.testing.assert_allclose(averaged.probabilities, [[0.9, 0.1], [0.4, 0.6]])


def test_headline_metrics_are_in_the_order_of_tables_and_without_single_classes():
    assert headline_metrics(["n", "brier", "auc[x]", "auc"]) == ("auc", "brier")


@pytest.mark.parametrize("classes", [2, 3])
def test_a_resample_that_draws_nobody_is_undefined_without_a_warning(classes):
    scores = random_scores(1, classes, volumes=9)
    drawn = metric_draws(scores, np.stack([np.zeros(9), np.ones(9)]))
    assert np.isnan([drawn[name][0] for name in ("auc", "accuracy", "log_loss", "brier", "ece")]).all()
    assert np.isfinite([drawn[name][1] for name in ("auc", "accuracy", "log_loss", "brier", "ece")]).all()


def test_the_top_k_accuracy_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.ones(7), size=40)
    labels = rng.integers(0, 7, size=40)
    scores = Scores(tuple(map(str, range(40))), labels, probabilities, tuple("abcdefg"), top_k=3)
    expected = oracle.top_k_accuracy_score(labels, probabilities, k=3, labels=np.arange(7))
    assert score_metrics(scores)["top3_accuracy"] == pytest.approx(expected)
    assert "top3_accuracy" in scores.headline
    assert not any(name.startswith("top") for name in score_metrics(replace(scores, top_k=7)))


def test_the_forced_choice_is_the_mean_auc_within_a_subject():
    rng = np.random.default_rng(4)
    subjects = np.repeat(np.arange(12), 4)
    labels = np.tile([0, 1, 0, 1], 12)
    labels[:4] = 0  # without a scan of class 1: left out
    p = np.round(rng.uniform(size=48), 1)  # with ties
    scores = Scores(
        tuple(map(str, subjects)),
        labels,
        np.stack([1 - p, p], axis=1),
        ("a", "b"),
        tuple(map(str, range(48))),
        is_paired=True,
    )
    own = [oracle.roc_auc_score(labels[subjects == s], p[subjects == s]) for s in range(1, 12)]
    assert score_metrics(scores)["forced_choice"] == pytest.approx(np.mean(own))
    low, high = bootstrap_intervals(scores, resamples=200)["forced_choice"]
    assert low < np.mean(own) < high
