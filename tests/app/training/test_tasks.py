"""Each task trains on its phantom, resumes and evaluates; a signal in the images is found."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from commands import call_command
from voxlift.app.files import read_rows

PAIRS = {"findings": "signs", "grades": "winding", "number": "pitch"}
TINY = [
    "data.subjects=24",
    "trainer.epochs=1",
    "preflight.enabled=false",
    "logger=none",
    "augment=none",
    "device=cpu",
    "preprocess.shape=[6,10,8]",
    "preprocess.spacing=[10,7,8]",
    "model.filters=[4,4,4]",
    "trainer.batch_size=7",
    "precision=float32",
    "data=phantom",
]
MODELS = {
    "findings": ("model=slice2d_attention", "trainer.balance=sample"),
    "grades": ("model=volume3d", "trainer.balance=weights"),
    "number": ("experiment=inflated", "trainer.balance=sample", "augment.mixup_alpha=0.2"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders of the phantom's files and of prepared volumes."""
    folder = tmp_path_factory.mktemp("data")
    return [f"data.folder={folder / 'phantom'}", f"cache.folder={folder / 'cache'}"]


@pytest.mark.parametrize("task", PAIRS)
def test_a_task_trains_resumes_and_evaluates_to_the_same_metrics(task, data, tmp_path):
    run = tmp_path / "run"
    arguments = [*TINY, *data, *MODELS[task], f"task={task}", f"data.task={PAIRS[task]}", f"run_dir={run}"]
    assert call_command("train", *arguments) == 0
    assert call_command("train", f"resume={run}", "trainer.epochs=2") == 0
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["task"] == task
    assert len(read_rows(run / "history.csv")) == 2
    assert call_command("evaluate", f"run={run}") == 0
    again = json.loads((run / "evaluation-test.json").read_text(encoding="utf-8"))["test"]
    expected = metrics["test"]
    for name in (name for name, value in expected.items() if not isinstance(value, dict)):
        assert again[name] == pytest.approx(expected[name], abs=1e-4, rel=1e-4, nan_ok=True), name
    if task == "number":
        rows = [row for row in read_rows(run / "splits.csv") if row["split"] == "train"]
        values = [float(row["label"]) for row in rows]
        assert metrics["training"] == pytest.approx({"mean": np.mean(values), "median": np.median(values)})
        predicted = [float(row["prediction"]) for row in read_rows(run / "predictions.csv")]
        assert min(predicted) > 0  # in mm, not standardised
        assert expected["baseline_mae_mean"] > 0
    if task == "findings":
        assert set(metrics["thresholds"]) == {"nodule", "calcified"}
        cells = {row["label_calcified"] for row in read_rows(run / "splits.csv")}
        assert cells == {"", "0", "1"}


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    """A table whose images are as bright as a number, which grades and two findings follow."""
    folder = tmp_path_factory.mktemp("bright")
    rng = np.random.default_rng(1)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "age", "stage", "old", "odd"])
        for index in range(60):
            age = float(rng.uniform(20, 80))
            voxels = (rng.normal(size=(8, 6, 5)) + age / 10).astype(np.float32)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"{index}.nii")
            stage = ("young", "middle", "late")[int(age > 40) + int(age > 60)]
            odd = "" if index % 5 == 0 else index % 2
            writer.writerow([f"{index}.nii", f"{age:.2f}", stage, int(age > 50), odd])
    return folder / "labels.csv"


@pytest.mark.parametrize(
    ("options", "metric", "least"),
    [
        (["task=number", "data.label_column=age"], "r2", 0.8),
        (
            ["task=grades", "data.label_column=stage", "data.classes=[young,middle,late]"],
            "kappa_quadratic",
            0.7,
        ),
        (["task=findings", "data.label_columns=[old,odd]"], "auc[old]", 0.9),
    ],
)
def test_a_linear_model_finds_what_the_images_show(options, metric, least, bright, tmp_path):
    run = tmp_path / "run"
    shared = [
        "data=manifest",
        f"data.table={bright}",
        "preprocess=none",
        f"cache.folder={bright.parent}/cache",
    ]
    assert call_command("train", *shared, *options, "model=linear", "logger=none", f"run_dir={run}") == 0
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"][metric] > least
    maps = sorted(path.name for path in run.glob("weights*.nii.gz"))
    assert maps[0] in {"weights.nii.gz", "weights_higher-grade.nii.gz", "weights_odd.nii.gz"}
    assert call_command("evaluate", f"run={run}") == 0


def test_grades_in_words_need_their_order(bright, tmp_path, capsys):
    arguments = ["data=manifest", f"data.table={bright}", "data.label_column=stage", "logger=none"]
    assert (
        call_command("train", *arguments, "task=grades", "model=linear", f"run_dir={tmp_path / 'run'}") == 2
    )
    assert "data.classes" in capsys.readouterr().err


def test_a_number_without_bins_is_told_of_both_ways_out(bright, tmp_path, capsys):
    arguments = ["data=manifest", f"data.table={bright}", "data.label_column=age", "logger=none"]
    assert call_command("train", *arguments, "model=linear", f"run_dir={tmp_path / 'run'}") == 2
    told = capsys.readouterr().err
    assert "task=number" in told
    assert "data.label_bins" in told
