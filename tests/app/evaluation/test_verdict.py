from dataclasses import replace

import numpy as np
import pytest

from score_sets import build_scores
from voxlift.app.evaluation.delong import DeLong
from voxlift.app.evaluation.mcnemar import McNemar
from voxlift.app.evaluation.paired import Comparison, Difference, compare_models
from voxlift.app.evaluation.verdict import (
    better_model,
    comparison_verdict,
    format_p_value,
    overall_verdict,
    run_verdict,
)


def compared(difference, low, high, *, p=0.01, delong=None, primary="auc", names=("slice2d", "volume3d")):
    first = 0.8
    found = Difference(primary, first, first + difference, difference, low, high, p)
    adjusted = {"bootstrap": p, "mcnemar": 0.5} | ({} if delong is None else {"delong": delong})
    test = (
        None if delong is None else DeLong(first, first + difference, difference, 0.1, low, high, delong, 90)
    )
    return Comparison(
        *names, {primary: found}, test, McNemar(1, 1, 1, 1, 1.0, 1.0), adjusted, primary, 90, 1, 0.95
    )


def test_better_only_where_the_interval_and_the_adjusted_p_value_both_exclude_equality():
    assert better_model(compared(0.05, 0.01, 0.09)) == "volume3d"
    assert better_model(compared(0.05, -0.01, 0.09)) is None
    assert better_model(compared(0.05, 0.01, 0.09, p=0.08)) is None


def test_lower_is_better_for_losses():
    assert better_model(compared(-0.05, -0.09, -0.01, primary="brier")) == "volume3d"
    assert "brier score" in comparison_verdict(compared(-0.05, -0.09, -0.01, primary="brier"))


def test_the_gain_is_given_from_the_better_models_side():
    for found in (compared(0.05, 0.01, 0.09), compared(-0.05, -0.09, -0.01)):
        text = comparison_verdict(found)
        assert text.startswith(better_model(found))
        assert "+0.050 (95 % interval +0.010 to +0.090, p = 0.010)" in text
        assert "90 subjects" in text
    assert "p < 0.001" in comparison_verdict(compared(0.05, 0.01, 0.09, p=0.0004))


def test_without_a_better_model_the_largest_possible_difference_is_given():
    text = comparison_verdict(compared(0.02, -0.03, 0.07, p=0.4))
    assert "\N{MINUS SIGN}0.030 to +0.070" in text
    assert "up to 0.070" in text


def test_one_seed_is_a_caution_only_where_a_model_is_called_better():
    better, undecided = compared(0.05, 0.01, 0.09), compared(0.05, -0.01, 0.09)
    assert "one seed" in comparison_verdict(better)
    assert "seed" not in comparison_verdict(replace(better, trainings=3))
    assert "seed" not in comparison_verdict(undecided)
    assert overall_verdict([better] * 3).count("one seed") == 1


@pytest.mark.parametrize(
    ("p", "delong", "disagrees"),
    [(0.01, 0.2, True), (0.3, 0.01, True), (0.01, 0.02, False)],
)
def test_a_disagreement_of_the_tests_is_reported(p, delong, disagrees):
    found = compared(0.05, 0.01, 0.09, p=p, delong=delong)
    assert ("DeLong" in comparison_verdict(found)) is disagrees
    pairs = [found, compared(0.05, 0.01, 0.09, delong=0.01, names=("a", "b"))]
    assert ("DeLong" in overall_verdict(pairs)) is disagrees


def test_identical_scores_have_no_better_model():
    p_yes = np.repeat([0.1, 0.2, 0.7, 0.9], 4)
    scores = build_scores(p_yes > 0.5, p_yes)
    (found,) = compare_models({"a": scores, "b": scores}, resamples=50)
    assert better_model(found) is None
    assert "1.000" in comparison_verdict(found)


def test_several_pairs_are_summarised_by_which_model_outperforms_which():
    pairs = [
        compared(0.05, 0.01, 0.09, names=("a", "b")),
        compared(0.05, -0.01, 0.09, names=("a", "c")),
        compared(-0.05, -0.09, -0.01, names=("b", "c")),
    ]
    text = overall_verdict(pairs)
    assert "b outperforms a" in text
    assert "b outperforms c" in text
    assert "a and c" in text
    assert "outperforms" not in overall_verdict(pairs[1:2] * 2)


@pytest.mark.parametrize(
    ("auc", "bounds", "found"),
    [
        (0.8, [0.7, 0.9], "better than chance: ROC AUC 0.800 (95 % interval 0.700 to 0.900)"),
        (0.55, [0.4, 0.7], "not significantly better"),
        (0.2, [0.1, 0.3], "worse than chance"),
        (1.0, [1.0, 1.0], "every resample"),
        (None, [None, None], "single class"),
    ],
)
def test_a_run_is_judged_by_its_interval(auc, bounds, found):
    text = run_verdict({"auc": auc, "n": 50, "subjects": 40, "intervals": {"auc": bounds}}, name="volume3d")
    assert found in text
    assert "volume3d" in text


def test_an_undefined_metric_is_reported():
    undefined = compared(np.nan, np.nan, np.nan)
    assert better_model(undefined) is None
    assert "undefined" in comparison_verdict(undefined)
    assert format_p_value(float("nan")) == "undefined"


def test_fewer_than_five_subjects_of_a_class_decide_nothing_and_fewer_than_fifteen_are_a_caution():
    few = replace(compared(1.0, 1.0, 1.0), smallest_class=4)
    assert better_model(few) is None
    assert "only 4" in comparison_verdict(few)
    some = replace(compared(0.05, 0.01, 0.09), smallest_class=12)
    assert better_model(some) == "volume3d"
    assert "only 12" in comparison_verdict(some)
    assert "rarest" not in comparison_verdict(replace(some, smallest_class=15))
