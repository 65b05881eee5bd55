"""The rows of the tables of the pages."""

import math

from voxlift.app.report.tables import cost_rows


def test_parameters_are_rounded_where_they_are_a_mean_over_folds():
    rows = dict(cost_rows({"covariates": {"parameters": 4.6}, "volume3d": {"parameters": 70130.0}}))
    assert rows["Parameters"] == ["5", "70.1 k"]
    assert dict(cost_rows({"unknown": {"parameters": math.nan}}))["Parameters"] == ["\N{EN DASH}"]


def test_best_epoch_is_counted_from_one_and_times_have_a_unit():
    new = {"best_epoch": 2, "first_epoch": 1, "train_seconds": 3.82}
    of_version_0_2 = {"best_epoch": 1, "train_seconds": 3.82}
    for cost in (new, of_version_0_2):
        assert dict(cost_rows({"volume3d": cost})) == {"Best epoch": ["2"], "Training time": ["3.82 s"]}
