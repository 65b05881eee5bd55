"""Groups by a column: how values are cut, the figures of each group, and the test of their differences."""

import math

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from sklearn.metrics import recall_score, roc_auc_score

from voxlift.app.evaluation.delong import delong_interval
from voxlift.app.evaluation.scores import Scores, select_rows
from voxlift.app.evaluation.subgroups import adjust_tests, compare_groups, evaluate_grouping
from voxlift.app.evaluation.table_one import MISSING, OTHER, cut_groups

NAN = math.nan


def draw_scores(n=240, *, shift=2.0, seed=0, volumes=1):
    """Scores of subjects with some volumes each; the first half of them is scored well."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, 2, n), volumes)
    good = np.repeat(np.arange(n) < n // 2, volumes)
    z = rng.normal(0, 1, n * volumes) + np.where(good, shift, 0.0) * (labels - 0.5)
    p = 1 / (1 + np.exp(-z))
    subjects = [f"s{i:03d}" for i in range(n) for _ in range(volumes)]
    return Scores(
        subjects, labels, np.stack([1 - p, p], 1), ("no", "yes"), [f"f{i}" for i in range(len(p))], 0.4
    ), good


def test_numbers_are_cut_at_edges_and_at_quantiles_and_words_by_name():
    ages = [20.0, 49.0, 50.0, 65.0, 90.0, NAN]
    cut = cut_groups("age", ages, edges=(50, 65))
    assert cut.names == ("below 50", "50 to below 65", "65 and above", MISSING)
    assert cut.codes.tolist() == [0, 0, 1, 2, 2, 3]
    many = cut_groups("age", [float(x) / 2 for x in range(90)], quantiles=3)
    assert np.bincount(many.codes).tolist() == [30, 30, 30]
    assert many.names == ("below 15", "15 to below 30", "30 and above")
    assert cut_groups("sex", ["M", "F", "M"]).names == ("F", "M")
    assert cut_groups("grade", [2.0, 1.0, 2.0]).names == ("1", "2")  # codes are categories
    crowded = cut_groups("site", [f"{i:02d}" for i in range(20)] + ["00", "19"])
    assert len(crowded.names) == 12
    assert crowded.names[-1] == OTHER


def test_an_empty_column_is_one_missing_group_and_equal_numbers_are_one_group():
    assert cut_groups("x", [NAN, NAN]).names == (MISSING,)
    assert len(cut_groups("x", [1.5] * 9).names) == 1


def test_each_group_has_the_figures_of_its_own_volumes():
    scores, good = draw_scores()
    grouping = cut_groups("half", ["good" if one else "poor" for one in good])
    found = evaluate_grouping([scores], [grouping], resamples=200)
    for block in found["groups"]:
        rows = good if block["group"] == "good" else ~good
        labels, p = scores.labels[rows], scores.probabilities[rows, 1]
        decided = p >= 0.4
        assert (block["n"], block["subjects"]) == (rows.sum(), rows.sum())
        assert block["prevalence"] == pytest.approx(labels.mean())
        assert block["auc"] == pytest.approx(roc_auc_score(labels, p))
        assert block["sensitivity"] == pytest.approx(recall_score(labels, decided))
        assert block["specificity"] == pytest.approx(recall_score(labels, decided, pos_label=0))
        for name, (low, high) in block["intervals"].items():
            assert low <= block[name] <= high
    assert found["tests"]["auc"]["p"] < 0.02  # 200 permutations


def test_groups_that_score_alike_differ_in_one_of_twenty_tests():
    p_values = []
    for seed in range(60):
        scores, _ = draw_scores(80, shift=0.0, seed=seed)
        sex = np.random.default_rng(seed + 1000).integers(0, 2, 80).astype(float)
        found = compare_groups([scores], [cut_groups("sex", list(sex))], [0, 1], permutations=99, seed=seed)
        p_values.append(found["auc"])
    assert np.mean(np.array(p_values) <= 0.05) <= 0.15
    assert 0.3 < np.mean(p_values) < 0.7


def test_the_test_of_sensitivity_agrees_with_a_chi_square_test():
    scores, good = draw_scores(600, shift=0.6, seed=3)
    positive, decided = scores.labels == 1, scores.decisions == 1
    table = [[(positive & own & hit).sum() for hit in (decided, ~decided)] for own in (good, ~good)]
    oracle = chi2_contingency(table, correction=False).pvalue
    grouping = cut_groups("half", list(good.astype(float)))
    found = compare_groups([scores], [grouping], [0, 1], permutations=4000)
    assert found["sensitivity"] == pytest.approx(oracle, abs=0.03)


def test_small_groups_have_counts_but_no_figures_and_missing_cells_are_not_tested():
    scores, _ = draw_scores(60)
    values = ["rare"] * 4 + ["F", "M"] * 25 + [NAN] * 6
    found = evaluate_grouping([scores], [cut_groups("sex", values)], resamples=50, min_subjects=5)
    by_name = {block["group"]: block for block in found["groups"]}
    assert by_name["rare"]["n"] == 4
    assert by_name["rare"]["too_small"]
    assert "auc" not in by_name["rare"]
    assert by_name["F"]["auc"] is not None
    assert set(by_name) == {"F", "M", "rare", MISSING}


def test_volumes_of_a_subject_are_resampled_and_permuted_together():
    one, good = draw_scores(60, volumes=1, seed=5)
    copies = Scores(
        [s for s in one.subjects for _ in range(3)],
        np.repeat(one.labels, 3), np.repeat(one.probabilities, 3, 0),
        one.classes, [f"f{i}" for i in range(180)], one.threshold,
    )  # fmt: skip
    small = evaluate_grouping([one], [cut_groups("g", list(good.astype(float)))], resamples=100)
    large = evaluate_grouping(
        [copies], [cut_groups("g", list(np.repeat(good, 3).astype(float)))], resamples=100
    )
    for first, second in zip(small["groups"], large["groups"], strict=True):
        assert first["intervals"]["auc"] == pytest.approx(second["intervals"]["auc"])
    assert small["tests"]["auc"] == large["tests"]["auc"]


def test_holm_is_applied_over_all_columns_and_metrics():
    sex, age = ({"tests": {"auc": {"p": p}, "sensitivity": {"p": None}}} for p in (0.01, 0.04))
    adjust_tests({"sex": sex, "age": age})
    assert sex["tests"]["auc"]["p_holm"] == pytest.approx(0.02)
    assert age["tests"]["auc"]["p_holm"] == pytest.approx(0.04)


def test_the_interval_of_a_group_is_about_delongs_of_its_own_subjects():
    scores, _ = draw_scores(300, shift=1.0, seed=5)
    is_first = np.arange(300) % 2 == 0
    grouping = cut_groups("sex", ["F" if one else "M" for one in is_first])
    for block in evaluate_grouping([scores], [grouping])["groups"]:
        rows = np.flatnonzero(is_first if block["group"] == "F" else ~is_first)
        expected = delong_interval(select_rows(scores, rows))
        assert block["intervals"]["auc"] == pytest.approx(expected, abs=0.02)
