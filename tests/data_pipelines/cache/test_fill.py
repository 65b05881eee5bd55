import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from voxlift.data_pipelines.cache import fill_cache
from voxlift.data_pipelines.cache.fill import explain_problems
from voxlift.data_pipelines.cache.format import choose_dtype
from voxlift.data_pipelines.geometry import to_tensor_axes
from voxlift.data_pipelines.preprocess.prepare import prepare_tensor, prepare_volume, read_record
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.tables.regions import Region
from voxlift.data_pipelines.volume import VolumeError

SETTINGS = Preprocess(spacing=(1.0, 1.0, 1.0), shape=(5, 7, 11), window_hu=(0.0, 100.0))
CHANGED = {
    "spacing": (2.0, 1.0, 1.0),
    "shape": (5, 7, 9),
    "fit": "resize",
    "interpolation": "nearest",
    "antialias": True,
    "window_hu": (0.0, 50.0),
    "clip_percentiles": (1.0, 99.0),
    "zscore": "whole",
    "foreground_crop": True,
    "pad": 3.0,
    "prefer": "qform",
    "axcodes": "LPS",
    "foreground_threshold": 50.0,
    "foreground_margin_mm": 1.0,
    "nonfinite": "error",
    "same_grid": False,
    "time_axis": "first",
    "mask": ("channel",),
    "mask_margin_mm": 1.0,
    "mask_components": "largest",
}


def write_image(path: Path, seed: int = 0, shape: tuple[int, ...] = (11, 7, 5)) -> Path:
    voxels = np.random.default_rng(seed).integers(0, 100, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return path


@pytest.fixture
def images(tmp_path):
    return [(write_image(tmp_path / f"{i}.nii.gz", i),) for i in range(3)]


def read_back(cached, index=0):
    return np.fromfile(cached.files[index], cached.dtype).reshape(cached.shape)


def test_what_is_stored_is_what_preprocessing_gives(images, tmp_path):
    cached = fill_cache(images, SETTINGS, folder=tmp_path / "cache")
    assert cached.shape == (5, 7, 11, 1)
    assert not cached.problems
    for index, paths in enumerate(images):
        np.testing.assert_array_equal(
            read_back(cached, index), prepare_tensor(paths, SETTINGS).astype(np.float16)
        )


def test_a_second_fill_writes_nothing(images, tmp_path):
    first = fill_cache(images, SETTINGS, folder=tmp_path / "cache")
    before = {file: file.stat().st_mtime_ns for file in first.files}
    time.sleep(0.01)
    second = fill_cache(images, SETTINGS, folder=tmp_path / "cache")
    assert second == first
    assert {file: file.stat().st_mtime_ns for file in second.files} == before


def changed_settings(name):
    changed = {name: CHANGED[name]}
    # Two settings exclude each other: a window with a percentile clip, a spacing with a resize.
    if name == "clip_percentiles":
        changed["window_hu"] = None
    if name == "fit":
        changed["spacing"] = None
    if name.startswith("mask_"):  # they count where the mask is used
        changed["mask"] = ("crop",)
    return replace(SETTINGS, **changed)


def test_every_setting_is_tried():
    assert set(CHANGED) == {field.name for field in fields(Preprocess)}


def test_no_setting_is_served_the_voxels_of_another(images, tmp_path):
    settings = [SETTINGS, *map(changed_settings, CHANGED)]
    mask = [Region(mask=images[1][0])]
    filled = [
        fill_cache(images[:1], each, folder=tmp_path / "cache", regions=mask).files for each in settings
    ]
    assert len(set(filled)) == len(settings)


def test_mask_and_centre_count_where_they_are_used(images, tmp_path):
    mask = write_image(tmp_path / "mask.nii", 7)

    def fill(settings, region):
        return fill_cache(images[:1], settings, folder=tmp_path / "cache", regions=[region]).files[0]

    cropped = replace(SETTINGS, mask=("crop",), mask_margin_mm=1.0)
    regions = [Region(mask=mask), Region(mask=images[1][0])]
    regions += [Region(centre=(4.0, 3.0, 2.0)), Region(centre=(4.0, 4.0, 2.0))]
    files = {fill(cropped, region) for region in regions}
    assert len(files) == len(regions)
    write_image(mask, 8)
    os.utime(mask, ns=(1, 1))
    assert fill(cropped, regions[0]) not in files
    assert {fill(SETTINGS, region) for region in regions} == {fill(SETTINGS, None)}


def test_a_rewritten_image_is_prepared_again(images, tmp_path):
    before = fill_cache(images, SETTINGS, folder=tmp_path / "cache")
    write_image(images[0][0], seed=9)
    os.utime(images[0][0], ns=(1, 1))  # even a copy with an older time
    after = fill_cache(images, SETTINGS, folder=tmp_path / "cache")
    assert before.files[0] != after.files[0]
    assert before.files[1:] == after.files[1:]
    assert not np.array_equal(read_back(before), read_back(after))


def test_two_runs_at_once_end_with_the_same_whole_files(images, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(fill_cache, images, SETTINGS, folder=tmp_path / "cache") for _ in range(4)]
    assert len({job.result() for job in jobs}) == 1
    left = [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".json"]
    assert sorted(left) == sorted(jobs[0].result().files)
    np.testing.assert_array_equal(
        read_back(jobs[0].result()), prepare_tensor(images[0], SETTINGS).astype(np.float16)
    )


def test_a_kill_while_writing_leaves_nothing_that_is_served(images, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            fill_cache(images, SETTINGS, folder=tmp_path / "cache", workers=1)
    cached = fill_cache(images, SETTINGS, folder=tmp_path / "cache")
    assert not cached.problems
    np.testing.assert_array_equal(read_back(cached), prepare_tensor(images[0], SETTINGS).astype(np.float16))


def test_half_a_file_is_not_served(images, tmp_path):
    cached = fill_cache(images, SETTINGS, folder=tmp_path / "cache")
    whole = cached.files[0].read_bytes()
    cached.files[0].write_bytes(whole[:10])
    fill_cache(images, SETTINGS, folder=tmp_path / "cache")
    assert cached.files[0].read_bytes() == whole


def test_a_bad_file_is_named_and_the_others_are_kept(images, tmp_path):
    images[1][0].write_bytes(images[1][0].read_bytes()[:60])
    cached = fill_cache(images, SETTINGS, folder=tmp_path / "cache")
    assert cached.files[1] is None
    assert cached.files[0] is not None
    assert len(cached.problems) == 1
    assert images[1][0].name in cached.problems[0]


def test_images_of_another_native_shape_are_named(images, tmp_path):
    odd = (write_image(tmp_path / "odd.nii.gz", shape=(6, 7, 5)),)
    cached = fill_cache([*images, odd], Preprocess(), folder=tmp_path / "cache")
    assert cached.shape == (5, 7, 11, 1)
    assert all(fact in cached.problems[0] for fact in ("odd.nii.gz", "5x7x11x1"))


def test_only_bad_files_is_an_error(tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    with pytest.raises(VolumeError, match=r"broken\.nii\.gz"):
        fill_cache([(broken,)], SETTINGS, folder=tmp_path / "cache")


def test_a_cache_larger_than_allowed_is_refused_before_it_is_written(images, tmp_path):
    with pytest.raises(VolumeError, match=r"cache\.max_gb is 1e-06"):
        fill_cache(images, SETTINGS, folder=tmp_path / "cache", max_gb=1e-6)
    assert not (tmp_path / "cache").exists()


WHOLE, FRACTIONS = np.array([0.0, 255.0], np.float32), np.array([0.0, 0.5], np.float32)


@pytest.mark.parametrize(
    ("voxels", "settings", "dtype"),
    [
        (WHOLE, Preprocess(), "uint8"),
        (-WHOLE, Preprocess(), "int16"),
        (WHOLE * 200, Preprocess(), "float32"),
        (FRACTIONS, Preprocess(), "float32"),
        (FRACTIONS, SETTINGS, "float16"),
        (WHOLE, Preprocess(zscore="whole"), "float16"),
        (WHOLE * 300, Preprocess(zscore="foreground"), "float32"),
        (WHOLE * 300, Preprocess(clip_percentiles=(1.0, 99.0)), "float32"),
        (WHOLE, Preprocess(clip_percentiles=(1.0, 99.0)), "uint8"),
    ],
)
def test_the_smallest_type_that_loses_nothing_is_chosen(voxels, settings, dtype):
    assert choose_dtype(voxels, settings) == dtype


def write_voxels(path, voxels):
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return (path,)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_a_data_set_is_stored_in_the_type_that_its_widest_volume_needs(order, tmp_path):
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 200, (4, 3, 2)).astype(np.uint8),
        rng.integers(-900, 900, (4, 3, 2)).astype(np.int16),
        rng.random((4, 3, 2)).astype(np.float32),
    ]
    for count, dtype in ((1, "uint8"), (2, "int16"), (3, "float32")):
        kept = [index for index in order if index < count]
        images = [write_voxels(tmp_path / f"{index}.nii", arrays[index]) for index in kept]
        counted = []
        count_one = partial(counted.append, 1)
        cached = fill_cache(images, Preprocess(), folder=tmp_path / "cache", advance=count_one)
        assert cached.dtype == dtype
        assert len(counted) == count
        for index, place in zip(kept, range(count), strict=True):
            np.testing.assert_array_equal(read_back(cached, place)[..., 0], arrays[index].T)
        again = []
        assert fill_cache(images, Preprocess(), folder=tmp_path / "cache", report=again.append) == cached
        assert len(again) == 1
        assert "to be prepared" not in again[0]


def test_no_voxel_is_stored_as_infinite(tmp_path):
    counts = np.random.default_rng(0).gamma(2, 2e4, (2, 4, 3, 2)).astype(np.float32)  # as PET has them
    images = [write_voxels(tmp_path / f"{index}.nii", array) for index, array in enumerate(counts)]
    settings = Preprocess(clip_percentiles=(1.0, 99.0))
    cached = fill_cache(images, settings, folder=tmp_path / "cache")
    assert counts.max() > np.finfo(np.float16).max
    for index in range(2):
        expected = to_tensor_axes(prepare_volume(images[index], settings).voxels)
        np.testing.assert_array_equal(read_back(cached, index), expected)


def test_a_standard_score_beyond_float16_widens_the_data_set(tmp_path):
    near, far = np.random.default_rng(0).normal(5, 1e-3, (2, 4, 3, 2)).astype(np.float32)
    far[0] = -1e6  # outside of the foreground, whose spread the scores are scaled by
    images = [write_voxels(tmp_path / "near.nii", near), write_voxels(tmp_path / "far.nii", far)]
    settings = Preprocess(zscore="foreground", foreground_threshold=0.0)
    assert fill_cache(images[:1], settings, folder=tmp_path / "cache").dtype == "float16"
    cached = fill_cache(images, settings, folder=tmp_path / "cache")
    assert cached.dtype == "float32"
    assert np.isfinite(read_back(cached, 1)).all()


def test_a_second_fill_decodes_nothing(images, tmp_path, monkeypatch):
    first = fill_cache(images, SETTINGS, folder=tmp_path / "cache")
    monkeypatch.setattr("voxlift.data_pipelines.cache.fill.read_record", None)
    assert fill_cache(images, SETTINGS, folder=tmp_path / "cache") == first


def test_every_record_is_prepared_once(images, tmp_path, monkeypatch):
    read = []

    def count(paths, settings):
        read.append(paths)
        return read_record(paths, settings)

    monkeypatch.setattr("voxlift.data_pipelines.cache.fill.read_record", count)
    fill_cache(images, SETTINGS, folder=tmp_path / "cache")
    assert sorted(read) == sorted(images)


@pytest.mark.parametrize("text", ["", "{", '{"shape": [1, 2], "dtype": "uint8"}', '{"shape": 3}'])
def test_a_damaged_format_file_is_written_anew(text, images, tmp_path):
    first = fill_cache(images, SETTINGS, folder=tmp_path / "cache")
    (kept,) = (
        file for file in (tmp_path / "cache").glob("*.json") if "shape" in json.loads(file.read_text())
    )
    kept.write_text(text)
    assert fill_cache(images, SETTINGS, folder=tmp_path / "cache") == first


def test_the_size_is_reported_before_anything_is_written(images, tmp_path):
    reported = []

    def report(text):
        assert not (tmp_path / "cache").exists()
        reported.append(text)

    fill_cache(images, SETTINGS, folder=tmp_path / "cache", report=report)
    for fact in ("3 volumes", "5x7x11x1 float16", "2.3 kB", str(tmp_path / "cache")):
        assert fact in reported[0]


def test_a_full_disk_is_not_taken_for_a_bad_image(images, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("voxlift.data_pipelines.cache.fill._write", full)
    with pytest.raises(OSError, match="No space left"):
        fill_cache(images, SETTINGS, folder=tmp_path / "cache")


def test_skipping_is_not_suggested_where_no_image_is_left():
    assert "data.on_bad_file=skip" in explain_problems(["a: bad"])
    assert "data.on_bad_file" not in explain_problems(["a: bad"], is_any_left=False)


def test_ten_problems_are_shown_and_the_rest_counted():
    text = explain_problems([f"file{i}: bad" for i in range(12)])
    assert text.startswith("12 ")
    assert "file9" in text
    assert "file10" not in text
    assert "2 more" in text


def test_a_folder_that_cannot_be_written_is_named_with_its_key(images, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(VolumeError, match=r"cache\.folder=.*file"):
            fill_cache(images, SETTINGS, folder=folder)


def test_a_complete_cache_is_only_read(images, tmp_path, monkeypatch):
    first = fill_cache(images, SETTINGS, folder=tmp_path / "cache")

    def refuse(*_args, **_settings):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert fill_cache(images, SETTINGS, folder=tmp_path / "cache") == first
    first.files[0].unlink()
    with pytest.raises(VolumeError, match="Read-only file system"):
        fill_cache(images, SETTINGS, folder=tmp_path / "cache")
