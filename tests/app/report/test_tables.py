"""The rows of the tables of the pages."""

import math

from voxlift.app.report.tables import cost_rows


def test_parameters_are_rounded_where_they_are_a_mean_over_folds():
    rows = dict(cost_rows({"covariates": {"parameters": 4.6}, "volume3d": {"parameters": 70130.0}}))
    assert rows["Parameters"] == ["5", "70.1 k"]
    assert dict(cost_rows({"unknown": {"parameters": math.nan}}))["Parameters"] == ["\N{EN DASH}"]
