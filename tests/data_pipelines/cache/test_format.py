"""Metadata beside prepared volumes: written while the cache is filled, computed once where it is missing."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scans import SHAPE, write_scan
from voxlift.data_pipelines.cache import fill_cache
from voxlift.data_pipelines.cache.format import PreparedVolumes, load_metadata, summarise_volume
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.readers import read_stored
from voxlift.data_pipelines.readers.identity import HASH_KIND, hash_image

SETTINGS = Preprocess(window_hu=(0.0, 100.0))


@pytest.fixture
def images(tmp_path):
    """Two records of two channels each; the last channel is blank."""
    for index in range(3):
        write_scan(tmp_path / f"{index}.nii.gz", index)
    blank = nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.diag([1.0, 2.0, 3.0, 1.0]))
    nib.save(blank, tmp_path / "3.nii.gz")
    return [tuple(tmp_path / f"{index}.nii.gz" for index in pair) for pair in ((0, 1), (2, 3))]


def fill(images, folder):
    cached = fill_cache(images, SETTINGS, folder=folder)
    return PreparedVolumes(cached.files, cached.shape, cached.dtype)


def expected_summary(paths, file, volumes):
    prepared = np.fromfile(file, volumes.dtype).reshape(volumes.shape)
    return summarise_volume([read_stored(path) for path in paths], prepared)


def test_filling_keeps_the_hashes_of_the_images_and_the_summary_of_the_stored_voxels(images, tmp_path):
    volumes = fill(images, tmp_path / "cache")
    decoded = []
    found = load_metadata(images, volumes, SETTINGS, progress=lambda *counts: decoded.append(counts))
    assert decoded == []
    first, second, third = (hash_image(read_stored(tmp_path / f"{index}.nii.gz")) for index in range(3))
    assert [one.voxel_hashes for one in found] == [(first, second), (third, None)]
    blank = images[1][1]
    combined = [one.combine_hashes(paths) for one, paths in zip(found, images, strict=True)]
    assert combined == [f"{first}+{second}", f"{third}+blank {blank}"]
    for one, paths, file in zip(found, images, volumes.files, strict=True):
        assert one.summary == expected_summary(paths, file, volumes)


@pytest.mark.parametrize("text", [None, "", "{", "[1]", '{"voxel_hashes": [null]}', "earlier"])
def test_absent_damaged_or_earlier_metadata_is_computed_once_and_kept(images, tmp_path, text):
    volumes = fill(images, tmp_path / "cache")
    before = load_metadata(images, volumes, SETTINGS)
    damaged = Path(f"{volumes.files[1]}.json")
    saved = damaged.read_text()
    damaged.unlink()
    if text == "earlier":
        damaged.write_text(saved.replace(HASH_KIND, ""))
    elif text is not None:
        damaged.write_text(text)
    decoded = []
    for _ in range(2):
        assert load_metadata(images, volumes, SETTINGS, progress=lambda *n: decoded.append(n)) == before
    assert decoded == [(1, 1)]


def test_metadata_that_cannot_be_kept_is_no_error(images, tmp_path, monkeypatch):
    volumes = fill(images, tmp_path / "cache")
    before = load_metadata(images, volumes, SETTINGS)
    for file in volumes.files:
        Path(f"{file}.json").unlink()

    def refuse(*_args, **_settings):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert load_metadata(images, volumes, SETTINGS) == before
    assert not list((tmp_path / "cache").glob("*.float16.json"))
