"""A linear model of each task finds a signal in the images; labels that need more keys name them."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from commands import call_command


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


def test_a_number_without_bins_names_both_ways_to_read_it(bright, tmp_path, capsys):
    arguments = ["data=manifest", f"data.table={bright}", "data.label_column=age", "logger=none"]
    assert call_command("train", *arguments, "model=linear", f"run_dir={tmp_path / 'run'}") == 2
    message = capsys.readouterr().err
    assert "task=number" in message
    assert "data.label_bins" in message
