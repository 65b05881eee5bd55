"""The table of subjects: its figures against numpy and pandas, and standardised differences by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from voxlift.app.evaluation.table_one import (
    categorical_difference,
    describe_columns,
    standardised_difference,
    table_rows,
)

NAN = math.nan


def draw_people(n=90):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "split": rng.choice(["train", "val", "test"], n),
            "age": np.where(rng.random(n) < 0.1, NAN, rng.normal(60, 10, n).round(1)),
            "sex": rng.choice(["F", "M"], n),
            "site": rng.choice(["A", "B", "C"], n, p=[0.5, 0.3, 0.2]),
        }
    )


def test_means_medians_shares_and_missing_cells_are_those_of_pandas():
    people = draw_people()
    columns = {name: people[name].tolist() for name in ("age", "sex", "site")}
    rows = describe_columns(columns, people["split"].tolist(), ["train", "val", "test"])
    for split, own in people.groupby("split"):
        cells = {(row.variable, row.level, row.statistic): row.cells[split] for row in rows}
        age = own["age"].dropna()
        assert cells["age", "", "mean (sd)"] == f"{age.mean():.4g} ({age.std():.4g})"
        low, mid, high = age.quantile([0.25, 0.5, 0.75])
        assert cells["age", "", "median [quartiles]"] == f"{mid:.4g} [{low:.4g}, {high:.4g}]"
        missing = own["age"].isna()
        assert cells["age", "", "missing"] == f"{missing.sum()} ({100 * missing.mean():.1f} %)"
        for sex, share in own["sex"].value_counts(normalize=True).items():
            assert cells["sex", sex, "n (%)"] == f"{(own['sex'] == sex).sum()} ({100 * share:.1f} %)"
    differences = {row.variable: row.differences for row in rows if row.differences}
    ages = {split: own["age"].dropna() for split, own in people.groupby("split")}
    expected = (ages["test"].mean() - ages["train"].mean()) / math.sqrt(
        (ages["test"].var() + ages["train"].var()) / 2
    )
    assert differences["age"]["test"] == pytest.approx(expected)
    assert set(differences["sex"]) == {"val", "test"}


def test_of_two_categories_the_difference_is_that_of_two_shares():
    p, q = 0.3, 0.45
    expected = (q - p) / math.sqrt((p * (1 - p) + q * (1 - q)) / 2)
    assert categorical_difference([70, 30], [55, 45]) == pytest.approx(expected)
    assert categorical_difference([10, 20, 30], [20, 40, 60]) == 0


def test_of_several_categories_the_difference_does_not_depend_on_their_order():
    one, other = np.array([10, 30, 60]), np.array([25, 25, 50])
    values = {
        categorical_difference(one[order], other[order]).__round__(12)
        for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0])
    }
    assert len(values) == 1
    # Mahalanobis distance of the indicators, with all categories and a pseudo-inverse
    p, q = one / 100, other / 100
    pooled = (np.diag(p) - np.outer(p, p) + np.diag(q) - np.outer(q, q)) / 2
    assert values.pop() == pytest.approx(math.sqrt((q - p) @ np.linalg.pinv(pooled) @ (q - p)))


def test_what_cannot_be_compared_is_left_empty():
    assert math.isnan(standardised_difference([1.0], [2.0, 3.0]))
    assert math.isnan(categorical_difference([5, 0], [0, 5]))
    rows = describe_columns(
        {"x": [NAN, NAN, 1.5, 2.5, 3.5, 4.0, 5.0, 6.5]}, ["train"] * 2 + ["test"] * 6, ["train", "test"]
    )
    assert table_rows(rows)[0]["train"] == ""
    assert table_rows(rows)[0]["smd test"] == ""
