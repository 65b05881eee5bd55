"""The rows of the tables of the pages."""

import math
from pathlib import Path

import numpy as np
import yaml

from voxlift.app.report.audit_page import histogram_edges
from voxlift.app.report.tables import cost_rows, show_config, split_configs


def test_parameters_are_rounded_where_they_are_a_mean_over_folds():
    rows = dict(cost_rows({"covariates": {"parameters": 4.6}, "volume3d": {"parameters": 70130.0}}))
    assert rows["Parameters"] == ["5", "70.1 k"]
    assert dict(cost_rows({"unknown": {"parameters": math.nan}}))["Parameters"] == ["\N{EN DASH}"]


def test_best_epoch_is_counted_from_one_and_times_have_a_unit():
    new = {"best_epoch": 2, "first_epoch": 1, "train_seconds": 3.82}
    of_version_0_2 = {"best_epoch": 1, "train_seconds": 3.82}
    for cost in (new, of_version_0_2):
        assert dict(cost_rows({"volume3d": cost})) == {"Best epoch": ["2"], "Training time": ["3.82 s"]}


def test_settings_are_shown_once_and_those_that_differ_by_model():
    shared = {"data": {"table": "t.csv", "bins": []}, "seed": 0}
    own = {"a": {"model": {"name": "a", "depth": 1}}, "b": {"model": {"name": "b"}}}
    texts = {name: yaml.safe_dump({**shared, **values, "run_dir": name}) for name, values in own.items()}
    text, rows = split_configs(texts)
    assert yaml.safe_load(text) == shared
    assert rows[0] == {"setting": "model.depth", "a": "1", "b": "\N{EN DASH}"}
    assert rows[1:] == [{"setting": "model.name", "a": "a", "b": "b"}]


def test_paths_of_a_configuration_are_relative_to_the_page():
    text = "data:\n  table: /lab/data/t.csv\n  root: null\n  images:\n  - '/lab/a b'\n  other: /mnt/x\n"
    shown = yaml.safe_load(show_config(text, Path("/lab/runs/one")))["data"]
    assert shown == {"table": "../../data/t.csv", "root": None, "images": ["../../a b"], "other": "/mnt/x"}


def test_bins_of_a_histogram_have_round_widths_and_hold_every_value():
    rng = np.random.default_rng(0)
    for values, step in (
        (rng.uniform(0.9, 1.2, 50), 0.01),
        (np.array([0.9375, 0.9376]), 0.01),
        (rng.integers(90, 900, 70).astype(float), 1.0),
    ):
        edges = histogram_edges(values, step)
        width = edges[1] - edges[0]
        assert float(f"{width:.0e}"[0]) in (1, 2, 5)
        assert width >= step * (1 - 1e-9)
        assert len(edges) <= 33
        assert np.histogram(values, edges)[0].sum() == len(values)
        np.testing.assert_allclose(
            (edges[0] + width / 2) / width, round((edges[0] + width / 2) / width), atol=1e-6
        )
