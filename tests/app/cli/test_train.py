"""A training on a tiny phantom: its files, its reproducibility, and scoring it again."""

import csv
import json

import numpy as np
import pytest

from commands import run_python
from tiny import train_tiny
from voxlift.app.cli.evaluate import score_again
from voxlift.app.files import read_rows
from voxlift.app.runs.configuration import load_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def run_once(folder, name, *overrides):
    return train_tiny(folder, name, "data.subjects=24", *overrides)


@pytest.fixture(scope="module")
def runs(folder):
    return {name: run_once(folder, name, f"model={name}") for name in ("slice2d", "volume3d")}


@pytest.mark.parametrize("name", ["slice2d", "volume3d"])
def test_a_run_folder_holds_what_every_other_command_needs(name, runs):
    run = runs[name]
    files = (run.config, run.environment, run.splits, run.model, run.history, run.predictions, run.metrics)
    assert all(path.stat().st_size > 0 for path in (*files, run.report, run.log))
    assert list(run.tensorboard.rglob("events*"))
    settings = load_settings(run)
    assert (settings.model.name, settings.data.name, settings.data.task) == (name, "phantom", "nodule")
    assert settings.data.classes == ["vessel", "nodule"]
    metrics = json.loads(run.metrics.read_text(encoding="utf-8"))
    assert metrics["test"]["n"] == 6
    assert {"auc", "balanced_accuracy", "accuracy", "intervals"} <= set(metrics["test"])
    assert len(read_rows(run.history)) == 2


def test_both_models_see_the_same_subjects(runs):
    assert runs["slice2d"].splits.read_text(encoding="utf-8") == runs["volume3d"].splits.read_text(
        encoding="utf-8"
    )
    splits = {row["subject"]: row["split"] for row in read_rows(runs["volume3d"].splits)}
    assert sorted(splits.values()).count("test") == 6
    for run in runs.values():
        rows = read_rows(run.predictions)
        assert {row["subject"]: row["split"] for row in rows} == splits
        assert len(rows) == 24
        np.testing.assert_allclose([float(r["p_vessel"]) + float(r["p_nodule"]) for r in rows], 1, atol=1e-9)


@pytest.mark.parametrize("name", ["slice2d", "volume3d"])
@pytest.mark.parametrize("split", ["test", "val"])
def test_a_finished_run_scores_the_same_again(name, split, runs):
    first = json.loads(runs[name].metrics.read_text(encoding="utf-8"))[split]
    again = score_again(runs[name], split=split, batch_size={"test": None, "val": 3}[split])[split]
    assert set(again) == set(first)
    for key in set(first) - {"intervals"}:
        assert again[key] == pytest.approx(first[key], abs=1e-6, nan_ok=True)


def test_an_evaluation_prints_only_its_results(folder, runs):
    answer = run_python(
        "-m", "voxlift.app.cli.evaluate", f"run={runs['slice2d'].path}", "on=train", cwd=folder
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "AUC" in answer.stdout
    results = runs["slice2d"].path / "evaluation-train.json"
    assert answer.stdout.strip().splitlines()[-1] == f"Results in {results}"
    assert json.loads(results.read_text(encoding="utf-8")).keys() == {"train"}


@pytest.mark.parametrize("name", [pytest.param("slice2d", marks=pytest.mark.slow), "volume3d"])
def test_the_same_seed_gives_the_same_history_and_another_does_not(name, folder, runs):
    def losses(run):
        with run.history.open() as file:
            return [(row["loss"], row["val_loss"]) for row in csv.DictReader(file)]

    again = run_once(folder, f"{name}-again", f"model={name}")
    other = run_once(folder, f"{name}-other", f"model={name}", "seed=1")
    assert losses(again) == losses(runs[name])
    assert losses(other) != losses(runs[name])


def test_attention_trains_the_slice_model_on_volumes(folder):
    run = run_once(folder, "attention", "model=slice2d", "model.aggregate=attention")
    assert json.loads(run.metrics.read_text(encoding="utf-8"))["test"]["n"] == 6


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.balance=sample", "augment=strong"],
        ["trainer.balance=weights", "trainer.label_smoothing=0.1", "optimizer=sgd"],
        ["augment.mixup_alpha=0.4", "trainer.monitor=loss", "trainer.patience=1"],
        ["splits.folds=3", "splits.fold=1", "logger=none"],
        ["model=slab25d"],
        ["model.baseline=resnet"],
        ["precision=mixed_bfloat16"],
    ],
)
def test_every_choice_trains(overrides, folder, tmp_path):
    run = run_once(folder, tmp_path / "run", *overrides)
    assert np.isfinite([float(row["loss"]) for row in read_rows(run.history)]).all()
