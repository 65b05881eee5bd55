"""Problems in the user's data are named before anything is trained."""

import csv

import nibabel as nib
import numpy as np
import pytest

from commands import call_command

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
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return call_command("train", *table, *small, *overrides)


@pytest.fixture
def refused(tmp_path, capsys):
    """Train, and expect a refusal that names the given texts."""

    def check(*overrides, named):
        assert train(tmp_path, *overrides) == 2
        shown = capsys.readouterr()
        message = shown.out + shown.err
        assert "Traceback" not in message
        assert [text for text in named if text not in message] == [], message
        assert not (tmp_path / "runs").exists()

    return check


def test_a_missing_column_is_named_with_those_that_exist(tmp_path, rows, refused):
    write_table(tmp_path, rows)
    refused("data.label_column=diagnosis", named=["diagnosis", "label"])


def test_images_that_do_not_exist_are_named_and_the_rest_counted(tmp_path, rows, refused):
    for row in rows:
        row["scan"] = row["scan"].replace(".nii.gz", ".nii")
    write_table(tmp_path, rows)
    refused(named=["0.nii", "2 more"])


def test_a_single_class_is_refused(tmp_path, rows, refused):
    write_table(tmp_path, [{**row, "label": "benign"} for row in rows])
    refused(named=["benign"])


def test_a_subject_in_two_splits_is_named(tmp_path, rows, refused):
    for index, row in enumerate(rows):
        row["part"] = ("train", "train", "train", "train", "val", "val", "test", "test")[index % 8]
    rows[-1] |= {"subject": "s0", "part": "test"}
    write_table(tmp_path, rows)
    refused("data.split_column=part", named=["s0"])


def test_a_class_with_fewer_subjects_than_splits_is_named(tmp_path, rows, refused):
    for row in rows[:-1]:
        row["label"] = "benign"
    write_table(tmp_path, rows)
    refused(named=["malign", "1"])


def test_bad_files_stop_the_run_before_the_first_epoch_and_are_all_named(tmp_path, rows, refused):
    for index in (2, 5):
        path = tmp_path / rows[index]["scan"]
        path.write_bytes(path.read_bytes()[:50])
    write_table(tmp_path, rows)
    refused(named=["2 image", "2.nii.gz", "5.nii.gz", "data.on_bad_file=skip"])


def test_a_run_folder_with_results_is_refused(tmp_path, rows, refused):
    write_table(tmp_path, rows)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "metrics.json").write_text("{}")
    refused("run_dir=old", named=["run_dir=old"])
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["metrics.json"]


def test_a_network_too_deep_for_the_volume_is_refused_before_it_is_built(tmp_path, rows, refused):
    write_table(tmp_path, rows)
    refused("preprocess.shape=[2,16,16]", "preprocess.spacing=[1,1,1]", named=["depth"])


def test_an_unknown_baseline_names_the_nearest(tmp_path, rows, refused):
    write_table(tmp_path, rows)
    refused("model.baseline=ResNet51", named=["ResNet51", "ResNet50"])


def test_a_lift_by_spacing_needs_a_spacing(tmp_path, rows, refused):
    write_table(tmp_path, rows)
    refused("model.depth_policy=spacing", named=["model.depth_policy=spacing", "preprocess.spacing"])


def test_a_list_of_models_is_refused_instead_of_merged_into_the_last(tmp_path, rows, refused):
    write_table(tmp_path, rows)
    refused("model=[slice2d,volume3d]", named=["models=[slice2d,volume3d]", "-m model=slice2d,volume3d"])


def test_another_word_for_a_split_is_named_with_those_that_are_known(tmp_path, rows, refused):
    words = ("training", "validation", "held back")
    write_table(tmp_path, [{**row, "part": words[place % 3]} for place, row in enumerate(rows)])
    refused("data.split_column=part", named=["held back", "train, val, test", "data.split_column"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["data.table", "labels.csv"], "data.table=labels.csv"),
        (["image_column={subject}/{subject}.nii"], "data.image_column"),
    ],
)
def test_an_argument_that_cannot_be_parsed_is_shown_with_its_key(tmp_path, rows, refused, arguments, named):
    write_table(tmp_path, rows)
    refused(*arguments, named=[named])
