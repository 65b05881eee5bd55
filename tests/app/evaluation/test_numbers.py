import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from task_predictions import build_numbers, name_subjects
from voxlift.app.evaluation.bootstrap import bootstrap_intervals, draw_subjects, resample_models
from voxlift.app.evaluation.evaluate import evaluate_scores
from voxlift.app.evaluation.metrics import score_metrics
from voxlift.app.evaluation.numbers import Numbers, subject_errors, wilcoxon_test
from voxlift.app.evaluation.paired import compare_models
from voxlift.app.evaluation.scores import ScoresError, average_by_subject, select_rows


def test_metrics_agree_with_scikit_learn_and_scipy():
    numbers = build_numbers(0, training_mean=58.0, training_median=57.0)
    truth, predicted = numbers.labels, numbers.values
    found = score_metrics(numbers)
    line = stats.linregress(predicted, truth)
    errors = predicted - truth
    expected = {
        "mae": mean_absolute_error(truth, predicted),
        "rmse": root_mean_squared_error(truth, predicted),
        "r2": r2_score(truth, predicted),
        "pearson": stats.pearsonr(truth, predicted).statistic,
        "spearman": stats.spearmanr(truth, predicted).statistic,
        "calibration_slope": line.slope,
        "calibration_intercept": line.intercept,
        "error_slope": LinearRegression().fit(truth[:, None], errors).coef_[0],
        "mean_error": errors.mean(),
        "error_sd": errors.std(ddof=1),
        "agreement_low": errors.mean() - 1.96 * errors.std(ddof=1),
        "agreement_high": errors.mean() + 1.96 * errors.std(ddof=1),
        "baseline_mae_median": mean_absolute_error(truth, np.full(80, 57.0)),
        "baseline_mae_mean": mean_absolute_error(truth, np.full(80, 58.0)),
        "baseline_rmse_mean": root_mean_squared_error(truth, np.full(80, 58.0)),
    }
    expected["mae_gain"] = expected["baseline_mae_median"] - expected["mae"]
    assert found == pytest.approx(expected | {"n": 80, "subjects": 80})


def test_each_draw_equals_scipy_on_the_resampled_rows_with_ties():
    coarse = replace(build_numbers(1, count=25), values=np.round(build_numbers(1, count=25).values, -1))
    (draws,) = resample_models([[coarse]], resamples=20, seed=3)
    strata = np.zeros(25, np.int64)
    weights = np.concatenate(list(draw_subjects(strata, resamples=20, seed=3, block=20))).astype(int)
    for index, row in enumerate(weights):
        rows = np.repeat(np.arange(25), row)
        truth, predicted = coarse.labels[rows], coarse.values[rows]
        assert draws["spearman"][index] == pytest.approx(stats.spearmanr(truth, predicted).statistic)
        assert draws["pearson"][index] == pytest.approx(stats.pearsonr(truth, predicted).statistic)
        assert draws["r2"][index] == pytest.approx(r2_score(truth, predicted))
        assert draws["error_sd"][index] == pytest.approx((predicted - truth).std(ddof=1))


def test_metrics_follow_the_unit_and_a_large_offset_loses_no_digits():
    numbers = build_numbers(2)
    found = score_metrics(numbers)
    far = score_metrics(
        replace(numbers, labels=1e3 * numbers.labels + 1e8, values=1e3 * numbers.values + 1e8)
    )
    for name in ("mae", "rmse", "error_sd", "mean_error"):
        assert far[name] == pytest.approx(1e3 * found[name], rel=1e-6)
    for name in ("r2", "pearson", "spearman", "calibration_slope", "error_slope"):
        assert far[name] == pytest.approx(found[name], rel=1e-6)


def test_a_constant_prediction_has_no_correlation_and_r2_of_zero_at_the_mean():
    numbers = build_numbers(3)
    constant = replace(numbers, values=np.full(80, numbers.labels.mean()))
    found = score_metrics(constant)
    assert found["r2"] == pytest.approx(0, abs=1e-12)
    assert all(math.isnan(found[name]) for name in ("pearson", "spearman", "calibration_slope"))
    block = evaluate_scores(constant, resamples=50)
    assert block["pearson"] is None
    assert block["intervals"]["pearson"] == [None, None]


def test_intervals_agree_with_theory_and_grow_where_volumes_share_a_subject():
    numbers = build_numbers(4, count=400)
    intervals = bootstrap_intervals(numbers, resamples=2000)
    error = numbers.errors
    low, high = stats.t.interval(0.95, 399, error.mean(), stats.sem(error))
    assert intervals["mean_error"] == pytest.approx((low, high), abs=0.05)
    exact = stats.pearsonr(numbers.labels, numbers.values).confidence_interval(0.95)
    assert intervals["pearson"] == pytest.approx(tuple(exact), abs=0.02)
    doubled = select_rows(numbers, np.repeat(np.arange(400), 2))
    narrow, wide = replace(doubled, subjects=name_subjects(800)), doubled
    widths = [np.diff(bootstrap_intervals(one, resamples=500)["mae"])[0] for one in (narrow, wide)]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(2), rel=0.15)


def test_wilcoxon_agrees_with_scipy_on_the_errors_of_subjects():
    first, second = build_numbers(5, noise=8, volumes=2), build_numbers(6, noise=4, volumes=2)
    found = wilcoxon_test([first, first], [second, second])
    differences = [
        np.abs(second.errors[[row, row + 1]]).mean() - np.abs(first.errors[[row, row + 1]]).mean()
        for row in range(0, 80, 2)
    ]
    expected = stats.wilcoxon(differences)
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.median_difference == pytest.approx(np.median(differences))
    assert len(subject_errors([first])) == found.subjects == 40
    same = wilcoxon_test([first], [first])
    assert (same.p_value, same.subjects) == (1.0, 0)


def test_comparison_pairs_subjects_and_holds_only_tests_of_numbers():
    weak, strong = build_numbers(7, noise=9), build_numbers(8, noise=2)
    shuffled = select_rows(strong, np.random.default_rng(0).permutation(80))
    models = {"weak": weak, "strong": shuffled, "again": weak}
    pairs = compare_models(models, primary="mae", resamples=400)
    first = pairs[0]
    assert first.differences["mae"].difference == pytest.approx(
        np.abs(strong.errors).mean() - np.abs(weak.errors).mean()
    )
    assert first.differences["mae"].high < 0
    assert (first.mcnemar, first.delong, first.smallest_class, first.findings) == (None, None, None, None)
    assert first.adjusted["wilcoxon"] == pytest.approx(3 * first.wilcoxon.p_value, abs=1e-6)
    assert pairs[1].differences["mae"].p_value == 1.0


def test_subjects_are_averaged_and_unusable_numbers_are_refused():
    numbers = Numbers(["a", "a", "b"], [3.0, 3.0, 5.0], [1.0, 4.0, 5.0], items=["x", "y", "z"])
    averaged = average_by_subject(numbers)
    assert averaged.subjects == ("a", "b")
    np.testing.assert_allclose(averaged.values, [2.5, 5.0])
    with pytest.raises(ScoresError, match="a"):
        average_by_subject(Numbers(["a", "a"], [3.0, 4.0], [1.0, 4.0]))
    with pytest.raises(ScoresError, match="b"):
        Numbers(["a", "b"], [3.0, np.nan], [1.0, 4.0])
    with pytest.raises(ScoresError, match="2"):
        Numbers(["a", "b"], [3.0], [1.0, 4.0])
