from dataclasses import replace

import numpy as np
import pytest

from voxlift.app.evaluation.bootstrap import Difference
from voxlift.app.evaluation.delong import DeLong
from voxlift.app.evaluation.paired import Comparison, McNemar, compare_models
from voxlift.app.evaluation.scores import Scores
from voxlift.app.evaluation.verdict import comparison_verdict, format_p, overall_verdict, run_verdict, winner


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


def test_better_only_where_interval_and_corrected_p_both_say_so():
    shown = compared(0.05, 0.01, 0.09)
    assert winner(shown) == "volume3d"
    assert comparison_verdict(shown) == (
        "volume3d beats slice2d in ROC AUC: +0.050 (95 % interval +0.010 to +0.090, p = 0.010) "
        "on 90 subjects. "
        "Each was trained with one seed: how far another would change this is not in the interval."
    )
    assert comparison_verdict(replace(shown, trainings=3)).endswith("on 90 subjects.")
    assert winner(compared(0.05, -0.01, 0.09)) is None
    assert winner(compared(0.05, 0.01, 0.09, p=0.08)) is None


def test_gain_is_told_from_the_winners_side():
    text = comparison_verdict(compared(-0.05, -0.09, -0.01, p=0.0004))
    assert text.startswith(
        "slice2d beats volume3d in ROC AUC: +0.050 (95 % interval +0.010 to +0.090, p < 0.001)"
    )


def test_lower_is_better_for_losses():
    assert winner(compared(-0.05, -0.09, -0.01, primary="brier")) == "volume3d"
    assert "in brier score" in comparison_verdict(compared(-0.05, -0.09, -0.01, primary="brier"))


def test_undecided_tells_how_large_a_difference_remains_possible():
    text = comparison_verdict(compared(0.02, -0.03, 0.07, p=0.4))
    assert "not told apart" in text
    assert "\N{MINUS SIGN}0.030 to +0.070" in text
    assert text.endswith("a difference of up to 0.070 remains possible.")
    assert "beats" not in text


@pytest.mark.parametrize(
    ("p", "delong", "doubted"),
    [(0.01, 0.2, True), (0.3, 0.01, True), (0.01, 0.02, False)],
)
def test_disagreement_of_the_tests_is_said(p, delong, doubted):
    text = comparison_verdict(compared(0.05, 0.01, 0.09, p=p, delong=delong))
    assert ("take this as unsettled" in text) is doubted


def test_same_scores_cannot_be_told_apart():
    chance = np.repeat([0.1, 0.2, 0.7, 0.9], 4)
    scores = Scores([*map(str, range(16))], chance > 0.5, np.stack([1 - chance, chance], 1), ("no", "yes"))
    (found,) = compare_models({"a": scores, "b": scores}, resamples=50)
    assert comparison_verdict(found).startswith("a and b have the same ROC AUC, 1.000, in every resample")


def test_several_pairs_are_told_as_who_beats_whom():
    pairs = [
        compared(0.05, 0.01, 0.09, names=("a", "b")),
        compared(0.05, -0.01, 0.09, names=("a", "c")),
        compared(-0.05, -0.09, -0.01, names=("b", "c")),
    ]
    assert overall_verdict([replace(one, trainings=2) for one in pairs]) == (
        "ROC AUC, over 90 subjects, shows b over a and b over c (Holm-corrected for 3 pairs). "
        "Not told apart: a and c."
    )
    assert overall_verdict(pairs).count("one seed") == 1
    assert overall_verdict(pairs[1:2] * 2).startswith("No pair of models can be told apart by ROC AUC")


@pytest.mark.parametrize(
    ("auc", "bounds", "words"),
    [
        (0.8, [0.7, 0.9], "better than chance: ROC AUC 0.800"),
        (0.55, [0.4, 0.7], "not shown to rank"),
        (0.2, [0.1, 0.3], "look for swapped labels"),
        (1.0, [1.0, 1.0], "sees no spread"),
        (None, [None, None], "holds a single class"),
    ],
)
def test_run_is_judged_by_its_interval(auc, bounds, words):
    text = run_verdict({"auc": auc, "n": 50, "subjects": 40, "intervals": {"auc": bounds}}, name="volume3d")
    assert words in text


def test_undefined_metric_is_said():
    assert "is undefined" in comparison_verdict(compared(np.nan, np.nan, np.nan))
    assert format_p(float("nan")) == "undefined"


def test_a_handful_of_subjects_decides_nothing_and_few_are_said():
    few = replace(compared(1.0, 1.0, 1.0), smallest_class=4)
    assert winner(few) is None
    assert comparison_verdict(few).endswith("the rarest class has only 4. ROC AUC is 0.800 and 1.800.")
    some = replace(compared(0.05, 0.01, 0.09), smallest_class=12, trainings=2)
    assert comparison_verdict(some).endswith("The rarest class has only 12 subjects: the interval is rough.")
    assert "rarest" not in comparison_verdict(replace(some, smallest_class=15))


def test_tests_that_disagree_are_named_among_several_pairs():
    pairs = [compared(0.05, 0.01, 0.09, delong=0.3), compared(0.05, 0.01, 0.09, delong=0.01, names="ab")]
    assert "DeLong's test disagrees on slice2d and volume3d: unsettled." in overall_verdict(pairs)
