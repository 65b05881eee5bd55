import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    log_loss,
    mean_absolute_error,
    roc_auc_score,
)

from task_predictions import build_grades
from voxlift.app.evaluation.bootstrap import bootstrap_intervals, draw_subjects, resample_models
from voxlift.app.evaluation.grades import Grades, cut_scores
from voxlift.app.evaluation.metrics import score_metrics, weighted_confusion
from voxlift.app.evaluation.paired import compare_models
from voxlift.app.evaluation.scores import select_rows


def test_metrics_agree_with_scikit_learn():
    grades = build_grades(0)
    found = score_metrics(grades)
    truth, decided = grades.labels, grades.decisions
    assert found["kappa_quadratic"] == pytest.approx(cohen_kappa_score(truth, decided, weights="quadratic"))
    assert found["mae_grades"] == pytest.approx(mean_absolute_error(truth, decided))
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, decided))
    assert found["log_loss"] == pytest.approx(log_loss(truth, grades.probabilities))
    aucs = [roc_auc_score(truth > cut, grades.probabilities[:, cut + 1 :].sum(axis=1)) for cut in range(3)]
    assert [found[f"auc[{name}]"] for name in (">none", ">mild", ">moderate")] == pytest.approx(aucs)
    assert found["auc"] == pytest.approx(np.mean(aucs))
    confusion = weighted_confusion(grades, np.ones((1, len(grades))))[0]
    np.testing.assert_array_equal(confusion, confusion_matrix(truth, decided))


def test_each_draw_equals_scikit_learn_on_the_resampled_rows():
    grades = build_grades(1, count=24)
    (draws,) = resample_models([[grades]], resamples=20, seed=5)
    strata = np.zeros(24, np.int64)  # the frequency of the grades varies too
    weights = np.concatenate(list(draw_subjects(strata, resamples=20, seed=5, block=20))).astype(int)
    for index, row in enumerate(weights):
        rows = np.repeat(np.arange(24), row)
        truth, decided = grades.labels[rows], grades.decisions[rows]
        expected = cohen_kappa_score(truth, decided, weights="quadratic")
        assert draws["kappa_quadratic"][index] == pytest.approx(expected)
        assert draws["mae_grades"][index] == pytest.approx(mean_absolute_error(truth, decided))


def test_decision_is_the_median_grade_and_no_threshold_is_taken():
    p = [[0.4, 0.1, 0.1, 0.4], [0.4, 0.3, 0.2, 0.1], [0.6, 0.0, 0.0, 0.4], [0.0, 0.5, 0.0, 0.5]]
    grades = Grades("abcd", [0, 1, 2, 3], p, ("none", "mild", "moderate", "severe"))
    np.testing.assert_array_equal(grades.decisions, [2, 1, 0, 3])
    two = Grades("ab", [0, 1], [[0.4, 0.6], [0.7, 0.3]], ("low", "high"))
    assert not two.is_binary
    assert "threshold" not in score_metrics(two)


def test_cut_is_a_pair_of_classes():
    grades = build_grades(2)
    cut = cut_scores(grades, 1)
    assert cut.classes == ("<=mild", ">mild")
    np.testing.assert_array_equal(cut.labels, grades.labels >= 2)
    np.testing.assert_allclose(cut.probabilities[:, 1], grades.probabilities[:, 2:].sum(axis=1))


def test_intervals_hold_the_estimate_and_a_grade_without_volumes_is_left_out():
    grades = build_grades(3)
    low, high = bootstrap_intervals(grades, resamples=300)["kappa_quadratic"]
    assert low < score_metrics(grades)["kappa_quadratic"] < high
    without_highest = select_rows(grades, np.flatnonzero(grades.labels < 3))
    found = score_metrics(without_highest)
    assert np.isnan(found["auc[>moderate]"])
    assert found["auc"] == pytest.approx((found["auc[>none]"] + found["auc[>mild]"]) / 2)
    single = select_rows(grades, np.flatnonzero(grades.labels == 0))
    assert np.isnan(score_metrics(single)["auc"])


def test_comparison_of_grades_is_by_the_bootstrap():
    weak, strong = build_grades(4, strength=0.5), build_grades(5, strength=4.0)
    (found,) = compare_models({"weak": weak, "strong": strong}, primary="kappa_quadratic", resamples=300)
    assert found.differences["kappa_quadratic"].low > 0.05
    assert found.differences["mae_grades"].high < 0
    assert (found.mcnemar, found.delong, found.wilcoxon) == (None, None, None)
    assert set(found.adjusted) >= {"bootstrap"}
    assert found.smallest_class == 22
