"""A regression on columns of the table leaves a run that stands beside those of networks."""

import csv
import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from commands import compose_command
from voxlift.app.cli.train import read_settings
from voxlift.app.comparison.results import write_comparison
from voxlift.app.comparison.selection import SelectedTrials
from voxlift.app.comparison.trial import Trial
from voxlift.app.config import SettingsError
from voxlift.app.data.cohort import Cohort
from voxlift.app.files import read_rows
from voxlift.app.runs.folder import RunFolder, open_finished_run
from voxlift.app.tasks.base import find_task
from voxlift.app.training.train import train
from voxlift.app.training.without_network import coefficient_rows, fit_table_model
from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.tables.manifest import Record

SUBJECTS = 48


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Labels that the column `volume` predicts exactly, `noise` and `site` not at all; noise as images."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(5)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "volume", "noise", "site"])
        for number in range(SUBJECTS):
            ill = number % 2 == 1
            voxels = rng.normal(size=(5, 7, 11)).astype(np.float32)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"{number}.nii")
            gap = "n/a" if number % 7 == 0 else f"{rng.normal():.3f}"
            writer.writerow(
                [f"{number}.nii", "ill" if ill else "well", 100 * ill + number, gap, "abc"[number % 3]]
            )
    return folder / "labels.csv"


def settings_for(table, *overrides):
    shared = [
        "data=manifest",
        f"data.table={table}",
        "data.image_column=file",
        "data.classes=[well,ill]",
        "preprocess=none",
        "splits.val=0.25",
        "splits.test=0.25",
        f"cache.folder={table.parent}/cache",
        "logger=none",
        "model=covariates",
    ]
    return read_settings(compose_command("train", *shared, *overrides))


def fit(table, path, columns):
    assert train(settings_for(table, f"run_dir={path}", f"model.columns=[{columns}]")) == 0
    return RunFolder(path)


@pytest.fixture(scope="module")
def runs(table, tmp_path_factory):
    """A run on the column that predicts the label, and one on the others, by name."""
    folder = tmp_path_factory.mktemp("runs")
    chosen = {"volume": "volume", "others": "noise,site"}
    return {name: fit(table, folder / name, columns) for name, columns in chosen.items()}


def test_a_predictive_column_scores_all_and_unrelated_ones_nothing(runs):
    auc = {name: json.loads(run.metrics.read_text())["test"]["auc"] for name, run in runs.items()}
    assert auc["volume"] == 1.0
    assert auc["others"] < 0.9
    assert {row["feature"] for row in read_rows(runs["others"].path / "coefficients.csv")} == {
        "(constant)",
        "noise",
        "noise missing",
        "site=a",
        "site=b",
        "site=c",
    }


def test_it_is_compared_with_another_model_on_the_same_subjects(runs, tmp_path, capsys):
    trials = tuple(Trial(name, 0, 0, (), run) for name, run in runs.items())
    write_comparison(SelectedTrials(trials, ()), folder=tmp_path)
    named = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert named["models"]["volume"]["test"]["auc"] == 1.0
    assert named["notes"][-1].startswith("Validation prefers ")
    assert "volume" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "volume" in capsys.readouterr().out


def test_an_interrupted_run_ends_with_the_same_predictions(table, runs, tmp_path):
    run = RunFolder(shutil.copytree(runs["volume"].path, tmp_path / "run"))
    run.metrics.unlink()
    run.predictions.unlink()
    assert train(settings_for(table, f"run_dir={run.path}", "model.columns=[volume]"), run) == 0
    assert run.predictions.read_bytes() == runs["volume"].predictions.read_bytes()


def test_several_classes_have_a_row_of_coefficients_each():
    cells = np.array([[float(i % 3), "ab"[i % 2]] for i in range(12)], object)
    records = tuple(Record(f"s{i}", (), i % 3, None, i) for i in range(12))
    cohort = Cohort(records, ("x", "y", "z"), ("train",) * 12, (), (1, 1, 1, 1), "float16", Preprocess())
    model = fit_table_model(cells, cohort, columns=("size", "site"), balance=True)
    rows = coefficient_rows(model, ("x", "y", "z"))
    assert [(row["class"], row["feature"]) for row in rows[:4]] == [
        ("x", "(constant)"),
        ("x", "size"),
        ("x", "site=a"),
        ("x", "site=b"),
    ]
    assert len(rows) == 12
    ordered = replace(cohort, task=find_task("grades"))
    model = fit_table_model(cells[:, :1], ordered, columns=("size",), balance=True)
    rows = coefficient_rows(model, ("x", "y", "z"))
    cells_of = [(row["class"], row["feature"]) for row in rows]
    assert cells_of == [(">x", "(constant)"), (">y", "(constant)"), ("higher grade", "size")]
    assert model.cost(ordered)["parameters"] == 3


def test_a_network_is_asked_for_where_there_is_none(runs):
    with pytest.raises(SettingsError, match="coefficients"):
        open_finished_run(str(runs["volume"].path))


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ("", SettingsError, "model.columns: expected columns"),
        ("label", SettingsError, "the label itself"),
        ("volum", ManifestError, "did you mean 'volume'"),
    ],
)
def test_columns_that_cannot_be_are_refused_before_a_folder_is_made(columns, error, message, table, tmp_path):
    with pytest.raises(error, match=message):
        fit(table, tmp_path / "run", columns)
    assert not (tmp_path / "run").exists()
