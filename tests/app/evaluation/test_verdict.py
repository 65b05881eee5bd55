import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from score_sets import build_scores, correlated_pair
from task_predictions import build_findings, build_numbers
from voxlift.app.evaluation.evaluate import evaluate_scores
from voxlift.app.evaluation.mcnemar import McNemar
from voxlift.app.evaluation.paired import Comparison, Difference, compare_models
from voxlift.app.evaluation.verdict import (
    comparison_verdict,
    decide,
    describe_chance,
    format_p_value,
    overall_verdict,
    run_verdict,
    short_verdict,
)
from voxlift.app.report.tables import MISSING, comparison_rows, finding_rows
from voxlift.app.studies.trainings import compare_with_reference


def compared(difference, low, high, *, p=0.01, primary="auc", names=("slice2d", "volume3d"), **changes):
    """A pair with a symmetric interval, whose 90 % interval is narrower as that of a normal distribution."""
    half = (high - low) / 2 * norm.ppf(0.95) / norm.ppf(0.975)
    found = Difference(
        primary, 0.8, 0.8 + difference, difference, low, high, p,
        difference - half, difference + half, 0.01, (high - low) / 2 / norm.ppf(0.975),
    )  # fmt: skip
    adjusted = {"bootstrap": p, "mcnemar": 0.5, "equivalence": 0.01}
    mcnemar = McNemar(1, 1, 1, 1, 1.0, 1.0)
    one = Comparison(*names, {primary: found}, None, mcnemar, adjusted, primary, 90, 1, 0.95)
    return replace(one, **changes)


@pytest.mark.parametrize(
    ("difference", "low", "high", "verdict", "is_small"),
    [
        (0.05, 0.01, 0.09, "better", False),
        (-0.05, -0.09, -0.01, "worse", False),
        (0.02, 0.01, 0.03, "better", True),
        (-0.02, -0.03, -0.01, "worse", True),
        (0.0, -0.04, 0.04, "equivalent", False),
        (0.01, -0.033, 0.053, "equivalent", False),  # the 90 % interval ends at 0.046
        (0.02, -0.03, 0.07, "cannot tell", False),
        (0.05, 0.0, 0.1, "cannot tell", False),
    ],
)
def test_the_interval_of_the_difference_gives_one_of_four_words(difference, low, high, verdict, is_small):
    found = decide(compared(difference, low, high))
    assert (found.verdict, found.by_less_than_matters) == (verdict, is_small)
    assert (found.more_subjects is not None) == (verdict == "cannot tell")
    one = compared(difference, low, high)
    for text in (comparison_verdict(one), short_verdict(one)):
        assert verdict in text.lower()
        assert ("less than matters" in text) == is_small


def test_the_margin_is_a_setting_in_the_unit_of_the_metric():
    one = compared(0.0, -0.04, 0.04)
    assert decide(replace(one, margin=0.02)).verdict == "cannot tell"
    grades = compared(0.0, -2.0, 2.0, primary="mae")
    assert decide(grades).verdict == "cannot tell"
    assert decide(replace(grades, margin=3.0)).verdict == "equivalent"


def test_lower_is_better_for_losses():
    assert decide(compared(-0.05, -0.09, -0.01, primary="brier")).verdict == "better"
    assert decide(compared(0.05, 0.01, 0.09, primary="brier")).verdict == "worse"


def test_with_several_pairs_each_family_of_tests_is_adjusted():
    found = compared(0.05, 0.01, 0.09, p=0.08)
    assert decide(found).verdict == "better"  # a single pair: the interval decides
    assert decide(replace(found, pairs=3)).verdict == "cannot tell"
    same = compared(0.0, -0.04, 0.04)
    assert decide(replace(same, pairs=3)).verdict == "equivalent"
    assert (
        decide(replace(same, pairs=3, adjusted=same.adjusted | {"equivalence": 0.06})).verdict
        == "cannot tell"
    )


def test_more_subjects_reach_the_power_and_one_fewer_would_not():
    one = compared(0.02, -0.03, 0.07)
    error = one.differences["auc"].subject_error
    found = decide(one)

    def power(more):
        shift = one.margin / (error * np.sqrt(90 / (90 + more)))
        return norm.sf(norm.ppf(0.975) - shift) + norm.cdf(-norm.ppf(0.975) - shift)

    assert found.power == 0.8
    assert power(found.more_subjects) >= 0.8 > power(found.more_subjects - 10)  # rounded to two digits


def test_where_the_power_is_reached_already_a_higher_one_is_asked_for():
    found = decide(compared(0.025, -0.005, 0.055))
    assert found.verdict == "cannot tell"
    assert found.power > 0.9
    assert found.more_subjects > 0


def test_where_seeds_alone_forbid_it_seeds_are_asked_for():
    one = compared(0.02, -0.2, 0.24)
    wide = replace(one.differences["auc"], seed_error=0.1)
    found = decide(replace(one, differences={"auc": wide}, trainings=2))
    assert found.more_subjects is None
    assert found.more_seeds > 5
    text = comparison_verdict(replace(one, differences={"auc": wide}, trainings=2))
    assert f"{found.more_seeds} more seeds" in text


def test_never_is_a_number_of_subjects_asked_for_that_nobody_has():
    one, asked = compared(0.02, -0.03, 0.07), set()
    for seed_error in np.linspace(0.001, 0.03, 60):
        differences = {"auc": replace(one.differences["auc"], seed_error=seed_error)}
        found = decide(replace(one, differences=differences, trainings=3))
        assert found.more_subjects is None or found.more_subjects <= 20 * one.subjects
        asked.add("seeds" if found.more_seeds else "subjects")
    assert asked == {"seeds", "subjects"}


def test_the_numbers_stand_beside_the_word():
    text = comparison_verdict(compared(0.05, 0.01, 0.09))
    assert "+0.050 (95 % interval +0.010 to +0.090, p = 0.010)" in text
    assert "90 subjects" in text
    assert "p < 0.001" in comparison_verdict(compared(0.05, 0.01, 0.09, p=0.0004))
    assert "90 % interval" in comparison_verdict(compared(0.0, -0.04, 0.04))


def test_one_seed_is_a_caution_wherever_something_is_decided():
    better, undecided = compared(0.05, 0.01, 0.09), compared(0.05, -0.01, 0.09)
    assert "one seed" in comparison_verdict(better)
    assert "one seed" in comparison_verdict(compared(0.0, -0.04, 0.04))
    assert "one seed" not in comparison_verdict(replace(better, trainings=3))
    assert "one seed" not in comparison_verdict(undecided)
    assert overall_verdict([better] * 3).count("one seed") == 1


def test_scores_that_rank_alike_are_equivalent_only_with_enough_subjects():
    for repeats, verdict in (
        (4, "cannot tell"),
        (40, "equivalent"),
    ):  # 3 / n is below 0.05 from 61 of a class
        p_yes = np.repeat([0.1, 0.2, 0.7, 0.9], repeats)
        scores = build_scores(p_yes > 0.5, p_yes)
        (found,) = compare_models({"a": scores, "b": scores}, resamples=50)
        assert decide(found).verdict == verdict
        assert "1.000" in comparison_verdict(found)
        if more := decide(found).more_subjects:  # of 16
            enough = replace(found, subjects=16 + more, smallest_class=8 + more // 2)
            assert decide(enough).verdict == "equivalent"


def test_several_pairs_are_listed_with_a_word_each():
    pairs = [
        compared(0.05, 0.01, 0.09, names=("a", "b"), pairs=3),
        compared(0.05, -0.01, 0.11, names=("a", "c"), pairs=3),
        compared(-0.05, -0.09, -0.01, names=("b", "c"), pairs=3),
    ]
    text = overall_verdict(pairs)
    assert "b is better than a" in text
    assert "c is worse than b" in text
    assert "cannot tell c from a (about" in text


def test_equivalence_by_the_bootstrap_agrees_with_two_one_sided_tests_of_a_normal_difference():
    first, second = correlated_pair(8, volumes=400, separations=(1.0, 1.05))
    (one,) = compare_models({"a": first, "b": second}, resamples=4000, margin=0.05)
    found, error = one.differences["auc"], one.delong.standard_error
    assert found.subject_error == pytest.approx(error, rel=0.05)
    assert found.equivalence_high - found.equivalence_low == pytest.approx(
        2 * norm.ppf(0.95) * error, rel=0.06
    )
    tests = [norm.sf((0.05 - sign * found.difference) / error) for sign in (-1, 1)]
    assert found.equivalence_p == pytest.approx(max(tests), abs=0.01)
    is_within = found.equivalence_low > -0.05 and found.equivalence_high < 0.05
    assert is_within == (found.equivalence_p < 0.05)


def test_the_spread_between_seeds_widens_the_interval_of_equivalence_by_its_own_quantile():
    pairs = [correlated_pair(seed, separations=(0.8, 0.8 + seed / 10)) for seed in (1, 2, 3)]
    models = {"a": [first for first, _ in pairs], "b": [second for _, second in pairs]}
    options = {"resamples": 1000}
    (narrow,) = compare_models(models, **options)
    (wide,) = compare_models(models, fit_seeds=[0, 1, 2], **options)
    one, other = narrow.differences["auc"], wide.differences["auc"]
    assert other.seed_error > 0
    assert other.subject_error == one.subject_error
    assert other.equivalence_high - other.equivalence_low > one.equivalence_high - one.equivalence_low
    assert other.high > other.equivalence_high


@pytest.mark.parametrize(
    ("auc", "bounds", "found"),
    [
        (0.8, [0.7, 0.9], "better than chance: ROC AUC 0.800 (95 % interval 0.700 to 0.900)"),
        (0.55, [0.4, 0.7], "from chance"),
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
    assert decide(undefined).verdict not in {"better", "worse"}
    assert "undefined" in comparison_verdict(undefined)
    assert format_p_value(float("nan")) == MISSING


def test_fewer_than_five_subjects_of_a_class_decide_nothing_and_fewer_than_fifteen_are_a_caution():
    few = replace(compared(1.0, 1.0, 1.0), smallest_class=4)
    assert decide(few).verdict not in {"better", "worse"}
    assert "only 4" in comparison_verdict(few)
    some = replace(compared(0.05, 0.01, 0.09), smallest_class=12)
    assert (some.second, decide(some).verdict) == ("volume3d", "better")
    assert "only 12" in comparison_verdict(some)
    assert "rarest" not in comparison_verdict(replace(some, smallest_class=15))


def test_numbers_are_set_against_the_training_median_in_their_unit():
    def verdict(low, high):
        metrics = {"mae": 4.21, "baseline_mae_median": 8.8, "subjects": 60}
        intervals = {"mae": (3.6, 4.9), "mae_gain": (low, high)}
        return run_verdict(metrics | {"intervals": intervals}, name="volume3d", unit="years")

    assert "better than the training median" in verdict(2.0, 5.0)
    assert "worse than the training median" in verdict(-2.0, -1.0)
    assert "annot tell" in verdict(-2.0, 1.0)
    assert all(text in verdict(2.0, 5.0) for text in ("4.21 years", "3.6", "8.8 years", "60"))


def test_grades_are_set_against_a_kappa_of_zero_and_findings_against_their_mean_auc():
    kappa = {"kappa_quadratic": 0.3, "auc": 0.9, "subjects": 60, "intervals": {"kappa_quadratic": (0.1, 0.5)}}
    assert "better than chance" in run_verdict(kappa, name="m")
    assert "annot tell" in run_verdict(kappa | {"intervals": {"kappa_quadratic": (-0.1, 0.5)}}, name="m")
    findings = evaluate_scores(build_findings(0), resamples=100)
    assert "findings better than chance" in run_verdict(findings, name="m")


def test_the_margin_of_a_number_is_a_tenth_of_the_error_of_the_median_and_the_verdict_has_its_sign():
    known = {"training_median": 60.0, "unit": "years"}
    weak, strong = build_numbers(1, noise=12, **known), build_numbers(2, noise=1, **known)
    (found,) = compare_models({"weak": weak, "strong": strong}, primary="mae", resamples=400)
    assert found.margin == pytest.approx(np.abs(weak.labels - 60).mean() / 10)
    assert decide(found).verdict == "better"  # a lower error
    assert "MAE (years)" in comparison_verdict(found)
    assert compare_models({"a": weak, "b": weak}, primary="mae", margin=2.0)[0].margin == 2.0


def test_few_subjects_with_a_number_decide_nothing_and_some_are_a_caution():
    for count, expected in ((8, "too few"), (24, "only 24 subjects")):
        weak, strong = build_numbers(1, noise=20, count=count), build_numbers(2, noise=1, count=count)
        (found,) = compare_models({"weak": weak, "strong": strong}, primary="mae", resamples=200)
        assert expected in comparison_verdict(found)
        assert (decide(found).verdict == "cannot tell") == (count < 10)


def test_chance_is_said_where_every_interval_reaches_it():
    low, high = {"intervals": {"auc": [0.4, 0.7]}}, {"intervals": {"auc": [0.6, 0.8]}}
    assert "0.5" in describe_chance({"a": low, "b": low}, "auc")
    assert describe_chance({"a": low, "b": high}, "auc") == ""
    assert describe_chance({"a": {"intervals": {"mae": [1, 2]}}}, "mae") == ""


def test_few_test_subjects_suggest_folds_and_show_no_p_value():
    weak, strong = build_numbers(1, noise=20, count=8), build_numbers(2, noise=1, count=8)
    (found,) = compare_models({"weak": weak, "strong": strong}, primary="mae", resamples=200)
    assert "splits.folds=5" in comparison_verdict(found)
    assert "splits.folds" not in comparison_verdict(replace(found, is_external=True))
    (row,) = comparison_rows([found])
    assert row["p"] == MISSING
    assert math.isnan(
        compare_with_reference({"weak": [weak], "strong": [strong]}, "weak", margin=None)["strong"].p
    )
    weak, strong = build_numbers(1, noise=20, count=80), build_numbers(2, noise=1, count=80)
    (many,) = compare_models({"weak": weak, "strong": strong}, primary="mae", resamples=200)
    assert "splits.folds" not in comparison_verdict(many)
    assert comparison_rows([many])[0]["p"] != MISSING
    findings = {name: build_findings(seed, count=10) for seed, name in enumerate("ab")}
    (few,) = compare_models(findings, resamples=200)
    assert {row["p"] for row in finding_rows([few])} == {MISSING}
    block = {"auc": 0.9, "intervals": {"auc": [0.7, 1.0]}}
    assert "splits.folds=5" in run_verdict({**block, "subjects": 6}, name="m")
    assert "splits.folds" not in run_verdict({**block, "subjects": 60}, name="m")
