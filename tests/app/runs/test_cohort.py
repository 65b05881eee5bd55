"""A resumed run notices which of its images changed; voxels in two splits and blank volumes are reported."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scans import SHAPE, random_voxels, write_scan
from voxlift.app.config import PreprocessSettings, SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort, prepare_cohort
from voxlift.app.runs.cohort import reopen_cohort, warn_about_images, write_cohort, write_images
from voxlift.app.runs.folder import RunFolder
from voxlift.data_pipelines.cache.format import VolumeSummary
from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.tables.manifest import Record

HEADER = (
    f"NDims = 3\nDimSize = {SHAPE[0]} {SHAPE[1]} {SHAPE[2]}\n"
    "ElementType = MET_SHORT\nElementSpacing = 1 2 3\n"
)


@pytest.fixture
def settings(tmp_path):
    made = TrainSettings(preprocess=PreprocessSettings(name="none", shape=list(SHAPE[::-1])))
    made.cache.folder, made.cache.workers = str(tmp_path / "cache"), 1
    return replace(made, data=replace(made.data, classes=["a", "b"]))


@pytest.fixture
def images(tmp_path):
    """Four images of four subjects: two NIfTI files, a header with its data elsewhere, and a link."""
    write_scan(tmp_path / "0.nii.gz", 0)
    write_scan(tmp_path / "1.nii.gz", 1)
    (tmp_path / "voxels.bin").write_bytes(random_voxels(2).tobytes(order="F"))
    (tmp_path / "2.mhd").write_text(HEADER + "ElementDataFile = voxels.bin\n")
    write_scan(tmp_path / "first.nii", 3)
    (tmp_path / "3.nii").symlink_to("first.nii")
    return [tmp_path / name for name in ("0.nii.gz", "1.nii.gz", "2.mhd", "3.nii")]


@pytest.fixture
def run(tmp_path, settings, images):
    """A run folder in which a training of these images began."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    splits = ("train", "train", "val", "test")
    records = [Record(f"p{row}", (image,), row % 2, splits[row], row) for row, image in enumerate(images)]
    cohort = prepare_cohort(records, ("a", "b"), splits, settings=settings)
    write_images(cohort, folder)
    write_cohort(cohort, folder)
    return folder


def reopened(run, settings, caplog):
    """Return the log of a resumed training's images."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="voxlift"):
        reopen_cohort(run, settings)
    return [
        record
        for record in caplog.records
        if "since this run" in record.message or "than when" in record.message
    ]


def test_unchanged_images_are_not_mentioned(run, settings, caplog):
    assert reopened(run, settings, caplog) == []


def test_an_image_that_was_written_again_with_the_same_voxels_is_no_warning(run, settings, images, caplog):
    os.utime(images[0], ns=(1, 1))
    (record,) = reopened(run, settings, caplog)
    assert record.levelno == logging.INFO


@pytest.mark.parametrize("form", ["file", "data of a header", "target of a link"])
def test_other_voxels_are_named(run, settings, images, caplog, form):
    tmp_path = images[0].parent
    if form == "file":
        write_scan(images[0], 7)
    elif form == "data of a header":
        (tmp_path / "voxels.bin").write_bytes(random_voxels(7).tobytes(order="F"))
    else:
        write_scan(tmp_path / "second.nii", 7)
        images[3].unlink()
        images[3].symlink_to("second.nii")
    (record,) = reopened(run, settings, caplog)
    assert record.levelno == logging.WARNING
    changed = {"file": "0.nii.gz", "data of a header": "2.mhd", "target of a link": "3.nii"}[form]
    assert changed in record.message


@pytest.mark.parametrize("form", ["copy", "link", "another format"])
def test_voxels_of_another_split_are_refused(run, settings, images, tmp_path, form):
    if form == "copy":
        shutil.copy(images[0], images[3])  # writes into the file behind the link
    elif form == "link":
        images[3].unlink()
        images[3].symlink_to(tmp_path / "0.nii.gz")
    else:
        (tmp_path / "voxels.bin").write_bytes(random_voxels(0).tobytes(order="F"))
        header = HEADER + "TransformMatrix = -1 0 0 0 -1 0 0 0 1\nElementDataFile = voxels.bin\n"
        images[2].write_text(header)
    with pytest.raises(ManifestError, match="two splits"):
        reopen_cohort(run, settings)


def test_a_run_that_recorded_no_images_is_resumed_with_a_line_in_the_log(run, settings, images, caplog):
    run.images.unlink()
    write_scan(images[0], 7)
    with caplog.at_level(logging.INFO, logger="voxlift"):
        assert len(reopen_cohort(run, settings).records) == 4
    assert str(run.path) in caplog.text


def test_a_damaged_record_of_the_images_is_named(run, settings):
    run.images.write_text(json.dumps(dict.fromkeys(json.loads(run.images.read_text()), 3)))
    with pytest.raises(SettingsError, match=r"images\.json"):
        reopen_cohort(run, settings)


def test_what_is_recorded_is_the_real_file_and_a_hash_of_the_voxels(run, images, tmp_path):
    saved = json.loads(run.images.read_text())
    assert list(saved) == list(map(str, images))
    linked = saved[str(images[3])]["files"]
    assert [file[0] for file in linked] == [str(tmp_path / "first.nii")]
    assert {file[0] for file in saved[str(images[2])]["files"]} == {
        str(images[2]),
        str(tmp_path / "voxels.bin"),
    }
    assert len({one["voxels"] for one in saved.values()}) == len(np.unique(range(4)))


def test_only_training_volumes_are_checked(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("voxlift"), "propagate", True)
    shape, splits = (3, 5, 7, 1), ("test", "train", "train", "val")
    files = tuple(tmp_path / f"{index}.float16" for index in range(4))
    for index, file in enumerate(files):
        (np.arange(105) % 2 * (index == 1)).astype(np.float16).tofile(file)
    records = tuple(Record(f"s{index}", (Path("x"),), index % 2, None, index) for index in range(4))
    settings = Preprocess(spacing=(1.0, 1.0, 1.0), shape=(3, 5, 7), window_hu=(0.0, 1.0))
    cohort = Cohort(records, ("a", "b"), splits, files, shape, "float16", settings)
    warn_about_images(cohort, [VolumeSummary((1.0, 1.0, 1.0), (3, 5, 7), "RAS", ())] * 2)
    (warning,) = caplog.records
    assert warning.getMessage().startswith("1 of 2 ")
