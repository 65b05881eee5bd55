"""Masks and centres through every command: cut out in training, kept by the run, needed by a prediction."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from commands import call_command, compose_command
from tiny import TINY, train_tiny
from voxlift.app.cli.train import read_settings
from voxlift.app.config import SettingsError
from voxlift.app.files import read_json, read_rows, write_rows
from voxlift.app.inference.run import open_run
from voxlift.app.report.case_facts import Shown
from voxlift.app.report.case_pictures import case_picture
from voxlift.app.report.cases import Grid, build_case
from voxlift.app.runs.cohort import reopen_split
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder, load_network
from voxlift.app.training.input import TrainingInput
from voxlift.data_pipelines.phantom.write import write_phantom

QUICK = ("preprocess.spacing=[4,3,3]", "logger=none", "preflight.enabled=false", "trainer.epochs=1")
CHANNEL = ("data.mask_column=mask", "preprocess.mask=[crop,channel]", "preprocess.mask_margin_mm=6")
NAMES = ("who", "image", "mask", "label", "x", "y", "z")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("masks")


@pytest.fixture(scope="module")
def masked(work):
    return train_tiny(work, "masked", "model=volume3d", *CHANNEL, *QUICK, "augment=light")


@pytest.fixture(scope="module")
def lesions(work):
    """Write a table with two points in each image: the phantom's own, and one of the other class."""
    source = write_phantom(work / "source", task="nodule", subjects=12, seed=0)
    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table = work / "lesions.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(NAMES)
        for row in rows:
            images = [source.parent / row["file"], (source.parent / row["mask"]).resolve()]
            place = [-float(row["x"]), -float(row["y"]), float(row["z"])]  # LPS
            other = [place[0] + 3.0, *place[1:]]
            labels = (row["label"], "vessel" if row["label"] == "nodule" else "nodule")
            for label, point in zip(labels, (place, other), strict=True):
                writer.writerow([row["participant_id"], *images, label, *point])
    return table


@pytest.fixture(scope="module")
def points(work, lesions):
    columns = ("data=manifest", f"data.table={lesions}", "data.subject_column=who")
    centres = ("data.centre_columns=[x,y,z]", "data.centre_space=LPS", "preprocess.mask_margin_mm=null")
    return train_tiny(work, "points", *columns, *centres, *QUICK, "model=slice2d")


def test_the_mask_is_a_channel_that_augmentation_leaves_binary(masked):
    depth, height, width, channels = load_network(masked.model).input_shape[1:]
    assert channels == 2
    settings = load_settings(masked)
    cohort = reopen_split(settings, masked, split="train")
    volume = next(cohort.prepared("train").arrays())
    assert volume.shape == (depth, height, width, 2)
    assert set(np.unique(volume[..., 1])) == {0.0, 1.0}
    batch, *_ = next(iter(TrainingInput(settings, cohort).batches.as_numpy_iterator()))
    assert set(np.unique(batch[..., 1])) <= {0.0, 1.0}
    assert len(np.unique(batch[..., 0])) > 2
    case = build_case("s", Shown("", "", 0, "class"), volume.astype(np.float32), grid=Grid(has_mask=True))
    without = replace(case, masks=())
    assert any(plane.any() for plane in case.masks)
    assert case_picture(case) != case_picture(without)  # the edge is drawn
    rows = read_rows(masked.splits)
    assert all(Path(row["mask"]).exists() for row in rows)
    assert [row["image"] for row in rows] == list(read_json(masked.images))


def test_a_masked_run_goes_through_every_command(masked, tmp_path):
    assert call_command("train", f"resume={masked.path}", "trainer.epochs=2") == 0
    assert call_command("evaluate", f"run={masked.path}") == 0
    np.testing.assert_allclose(
        read_json(masked.evaluation("test"))["test"]["auc"], read_json(masked.metrics)["test"]["auc"]
    )
    rows = [row for row in read_rows(masked.predictions) if row["split"] == "test"]
    masks = {row["image"]: row["mask"] for row in read_rows(masked.splits)}
    table = tmp_path / "new.csv"
    lines = [f"{row['image']},{masks[row['image']]}" for row in rows]
    table.write_text("\n".join(["file,mask", *lines, f"{rows[0]['image']},"]) + "\n")
    predict = ("predict", f"run={masked.path}", f"output={tmp_path}/p.csv")
    assert call_command(*predict, f"input={table}", "explain=true") == 0
    *scored, lacking = read_rows(tmp_path / "p.csv")
    np.testing.assert_allclose(
        [float(row["p_nodule"]) for row in scored], [float(row["p_nodule"]) for row in rows], atol=1e-4
    )
    assert all((tmp_path / row["map"]).exists() for row in scored)
    assert "mask" in lacking["reason"]
    contract = tmp_path / "export" / "contract.json"
    assert call_command("export", f"run={masked.path}", f"output={contract.parent}") == 0
    saved = json.loads(contract.read_text())
    assert saved["region"]["mask"] == "mask"
    assert saved["preprocess"]["mask"] == ["crop", "channel"]
    assert open_run(masked.path).predict(table).probabilities.shape == (len(lines) + 1, 2)


@pytest.mark.slow
def test_masks_go_through_comparison_external_data_and_a_study(work, masked, tmp_path):
    other = write_phantom(tmp_path / "other", task="nodule", subjects=8, seed=5)
    rows = read_rows(other)
    for row in rows:
        row["participant_id"] = f"ext-{row['participant_id']}"
    write_rows(other, rows)
    shared = (*TINY, f"data.folder={work}/data", f"cache.folder={tmp_path}/cache", *CHANNEL, *QUICK)
    compared = tmp_path / "compared"
    models = "models=[volume3d,linear]"
    assert call_command("compare", *shared, models, f"run_dir={compared}") == 0
    for name in ("volume3d", "linear"):
        settings = load_settings(RunFolder(compared / "runs" / f"{name}-seed0"))
        assert (settings.data.mask_column, tuple(settings.preprocess.mask)) == ("mask", ("crop", "channel"))
    for run in (masked.path, compared):
        output = tmp_path / f"external-{run.name}"
        assert call_command("evaluate", f"run={run}", f"data.table={other}", f"output={output}") == 0
        assert (output / "report.html").exists()
    small = ("study.epochs=1", "study.seeds=[0]", "study.resamples=100", "study.permutations=1")
    folder = (f"run_dir={tmp_path}/shortcuts", "study.site_column=none")
    assert call_command("study", "study=shortcuts", *shared, *small, *folder) == 0
    found = {row["contestant"]: row for row in read_rows(tmp_path / "shortcuts" / "table.csv")}
    assert {"border", "silhouette", "shuffled_slices"} <= set(found)


def test_a_prediction_without_the_mask_is_refused_in_words(masked, tmp_path, capsys):
    image = read_rows(masked.predictions)[0]["image"]
    table = tmp_path / "new.csv"
    table.write_text(f"file\n{image}\n")
    for given in (image, Path(image).parent, table):
        output = f"output={tmp_path}/p.csv"
        assert call_command("predict", f"run={masked.path}", f"input={given}", output) == 2
        assert "mask" in capsys.readouterr().err
    other = ("centre_columns=[x,y,z]", f"input={table}", f"output={tmp_path}/p.csv")
    assert call_command("predict", f"run={masked.path}", *other) == 2
    assert "mask_column" in capsys.readouterr().err


def test_lesions_of_a_subject_are_volumes_of_their_own_in_one_split(points, lesions, tmp_path):
    rows = read_rows(points.splits)
    assert len(rows) == 24
    assert len({(row["subject"], row["split"]) for row in rows}) == 12
    scored = [row for row in read_rows(points.predictions) if row["split"] == "test"]
    items = [row["image"] for row in scored]
    assert len(set(items)) == len(items) == sum(row["split"] == "test" for row in rows)
    assert call_command("evaluate", f"run={points.path}") == 0
    assert call_command("train", f"resume={points.path}", "trainer.epochs=2") == 0
    output = f"output={tmp_path}/p.csv"
    assert call_command("predict", f"run={points.path}", f"input={lesions}", output) == 0
    new = {row["image"]: row for row in read_rows(tmp_path / "p.csv")}
    scored = [row for row in read_rows(points.predictions) if row["split"] == "test"]
    for row in scored:
        np.testing.assert_allclose(float(new[row["image"]]["p_nodule"]), float(row["p_nodule"]), atol=1e-4)


def test_bad_masks_stop_a_training_or_are_left_out(work, lesions, capsys):
    with lesions.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::2]
    table, empty = work / "bad.csv", work / "empty.nii"
    image = nib.load(rows[0]["image"])
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), empty)
    rows[0]["mask"], rows[1]["mask"] = str(empty), str(work / "absent.nii")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, NAMES)
        writer.writeheader()
        writer.writerows(rows)
    columns = ("data=manifest", f"data.table={table}", "data.subject_column=who", "data.mask_column=mask")
    settings = (*TINY, *columns, *QUICK, "model=linear", f"cache.folder={work}/cache")
    assert call_command("train", *settings, f"run_dir={work}/stopped") == 2
    assert "absent.nii" in capsys.readouterr().err
    assert call_command("train", *settings, "data.on_bad_file=skip", f"run_dir={work}/skipped") == 0
    left_out = read_rows(work / "skipped" / "left_out.csv")
    assert len(left_out) == 2
    assert {"empty.nii" in row["reason"] or "absent.nii" in row["reason"] for row in left_out} == {True}
    audit = ("audit", *columns, f"output={work}/audit", "data.label_column=label")
    assert call_command(*audit) == 1
    kinds = {
        finding["kind"] for finding in json.loads((work / "audit" / "audit.json").read_text())["findings"]
    }
    assert {"mask_empty", "mask_absent"} <= kinds


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["preprocess.mask=channel"], "preprocess.mask"),
        (["data.mask_column=m", "preprocess.mask=[crop,outline]"], "preprocess.mask"),
        (["data.mask_column=m", "data.centre_columns=[x,y,z]"], "data.mask_column"),
        (["data.centre_columns=[x,y]"], "data.centre_columns"),
        (["data.centre_columns=[x,y,z]", "preprocess.mask=blank"], "preprocess.mask"),
        (["data.centre_columns=[x,y,z]", "data.centre_space=MNI"], "data.centre_space"),
    ],
)
def test_settings_of_masks_that_no_training_can_follow_are_refused(overrides, key):
    with pytest.raises(SettingsError, match=key):
        read_settings(compose_command("train", *TINY, *overrides))
