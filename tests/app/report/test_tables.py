"""What the pages' tables say of a model's cost."""

import math

from voxlift.app.report.tables import cost_rows


def test_parameters_are_whole_where_folds_average_to_a_part():
    rows = dict(cost_rows({"covariates": {"parameters": 4.6}, "volume3d": {"parameters": 70130.0}}))
    assert rows["Parameters"] == ["5", "70.1 k"]
    assert dict(cost_rows({"unknown": {"parameters": math.nan}}))["Parameters"] == ["\N{EN DASH}"]
