"""What is wrong with the user's data is told in a sentence that names it, before anything is trained."""

import csv

import nibabel as nib
import numpy as np
import pytest

from commands import run_python

CLASSES = ("benign", "malign")


def write_table(folder, rows):
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["subject", "scan", "label", "part"])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def rows(tmp_path):
    """Twelve subjects, six of each class, in folders with a space in their name."""
    (tmp_path / "my scans").mkdir()
    rng = np.random.default_rng(0)
    made = []
    for index in range(12):
        name = f"my scans/{index}.nii.gz"
        voxels = rng.integers(0, 100, (9, 7, 5)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / name)
        made.append({"subject": f"s{index}", "scan": name, "label": CLASSES[index % 2], "part": ""})
    return made


def train(folder, *overrides):
    table = [
        "data=manifest",
        "data.table=labels.csv",
        "data.image_column=scan",
        "data.subject_column=subject",
    ]
    small = ["preprocess=none", "trainer.epochs=1", "runs_folder=runs"]
    return run_python("-m", "voxlift.app.cli.train", *table, *small, *overrides, cwd=folder, timeout=600)


def expect_refusal(answer, folder, *told):
    assert answer.returncode == 2, answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    for text in told:
        assert text in answer.stderr
    assert not (folder / "runs").exists()


def test_a_missing_column_is_named_with_those_that_exist(tmp_path, rows):
    write_table(tmp_path, rows)
    answer = train(tmp_path, "data.label_column=diagnosis")
    expect_refusal(answer, tmp_path, "diagnosis", "label")


def test_images_that_do_not_exist_are_named_and_the_rest_counted(tmp_path, rows):
    for row in rows:
        row["scan"] = row["scan"].replace(".nii.gz", ".nii")
    write_table(tmp_path, rows)
    answer = train(tmp_path)
    expect_refusal(answer, tmp_path, "0.nii", "2 more")


def test_a_single_class_is_refused(tmp_path, rows):
    write_table(tmp_path, [{**row, "label": "benign"} for row in rows])
    expect_refusal(train(tmp_path), tmp_path, "benign")


def test_a_subject_in_two_splits_is_named(tmp_path, rows):
    for index, row in enumerate(rows):
        row["part"] = ("train", "train", "train", "train", "val", "val", "test", "test")[index % 8]
    rows[-1] |= {"subject": "s0", "part": "test"}
    write_table(tmp_path, rows)
    expect_refusal(train(tmp_path, "data.split_column=part"), tmp_path, "s0")


def test_a_class_with_fewer_subjects_than_splits_is_named(tmp_path, rows):
    for row in rows[:-1]:
        row["label"] = "benign"
    write_table(tmp_path, rows)
    expect_refusal(train(tmp_path), tmp_path, "malign", "1")


def test_bad_files_stop_the_run_before_the_first_epoch_and_are_all_named(tmp_path, rows):
    for index in (2, 5):
        path = tmp_path / rows[index]["scan"]
        path.write_bytes(path.read_bytes()[:50])
    write_table(tmp_path, rows)
    expect_refusal(train(tmp_path), tmp_path, "2 image(s)", "2.nii.gz", "5.nii.gz", "data.on_bad_file=skip")


def test_a_run_folder_with_results_is_refused(tmp_path, rows):
    write_table(tmp_path, rows)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "metrics.json").write_text("{}")
    expect_refusal(train(tmp_path, "run_dir=old"), tmp_path, "run_dir=old", "it holds results")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["metrics.json"]


def test_a_network_too_deep_for_the_volume_is_told_before_it_is_built(tmp_path, rows):
    write_table(tmp_path, rows)
    answer = train(tmp_path, "preprocess.shape=[2,16,16]", "preprocess.spacing=[1,1,1]")
    expect_refusal(answer, tmp_path, "depth")


def test_an_unknown_baseline_names_the_nearest(tmp_path, rows):
    write_table(tmp_path, rows)
    expect_refusal(train(tmp_path, "model.baseline=ResNet51"), tmp_path, "ResNet51", "ResNet50")


def test_a_lift_by_spacing_needs_a_spacing(tmp_path, rows):
    write_table(tmp_path, rows)
    answer = train(tmp_path, "model.depth_policy=spacing")
    expect_refusal(answer, tmp_path, "model.depth_policy=spacing", "preprocess.spacing is native")
