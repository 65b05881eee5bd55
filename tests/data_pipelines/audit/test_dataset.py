"""An audit reports every problem of a data set together, weighs it, and suggests settings."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scans import random_voxels, write_nifti, write_scan
from voxlift.data_pipelines.audit import audit_manifest, facts_rows
from voxlift.data_pipelines.tables.manifest import Manifest, Record
from voxlift.data_pipelines.tables.regions import Region

SHAPE = (11, 7, 5)


def manifest_of(paths, labels=None, subjects=None, splits=None):
    count = len(paths)
    labels = labels or [index % 2 for index in range(count)]
    subjects = subjects or [f"s{index}" for index in range(count)]
    splits = splits or [None] * count
    records = tuple(
        Record(subject, (Path(path),), label, split, row)
        for row, (path, label, subject, split) in enumerate(zip(paths, labels, subjects, splits, strict=True))
    )
    return Manifest(records, ("cat", "dog"), {}, Path("table.csv"))


def write_clean_files(folder, count=6):
    return [write_scan(folder / f"{index}.nii.gz", index) for index in range(count)]


def by_kind(audit):
    return {finding.kind: finding for finding in audit.findings}


def test_clean_data_has_no_finding(tmp_path):
    progress = []
    audit = audit_manifest(
        manifest_of(write_clean_files(tmp_path)), progress=lambda done, total: progress.append((done, total))
    )
    assert audit.findings == ()
    assert not audit.spoils
    assert audit.suggested is None
    assert progress == [(done, 6) for done in range(1, 7)]


def test_all_findings_of_a_bad_data_set_are_reported_together_worst_first(tmp_path):
    paths = write_clean_files(tmp_path, 8)
    paths[0].write_bytes(paths[0].read_bytes()[:200])
    write_nifti(paths[1], np.full(SHAPE, 3, np.int16))
    holes = random_voxels(2, np.float32)
    holes[0, 0, :2] = np.nan
    write_nifti(paths[2], holes)
    write_nifti(paths[3], np.full(SHAPE, np.nan, np.float32))
    write_nifti(paths[4], random_voxels(4), change=lambda image: image.set_qform(np.eye(4), 1))
    write_nifti(paths[5], random_voxels(5), np.diag([-1.0, 2.0, 9.0, 1.0]))
    write_nifti(paths[6], random_voxels(7))
    write_nifti(tmp_path / "x.nii", random_voxels(9)[..., None] * np.ones(2, np.int16))
    audit = audit_manifest(
        manifest_of([*paths, tmp_path / "x.nii", tmp_path / "absent.nii"]), time_axis="channels"
    )
    found = by_kind(audit)
    spoiling = {"unreadable", "absent", "constant", "no_finite_voxel", "same_voxels", "mixed_channels"}
    others = {"forms_conflict", "nonfinite", "spacing_outlier", "mixed_axcodes", "mixed_dtype"}
    assert spoiling | others <= set(found)
    assert all(found[kind].spoils for kind in spoiling)
    assert not any(found[kind].spoils for kind in others)
    assert audit.spoils
    spoils = [finding.spoils for finding in audit.findings]
    assert spoils == sorted(spoils, reverse=True)
    assert "2 of 385" in found["nonfinite"].message
    for kind, path in (("nonfinite", 2), ("no_finite_voxel", 3), ("unreadable", 0), ("spacing_outlier", 5)):
        assert found[kind].where == (str(paths[path]),)
    assert found["absent"].where == (str(tmp_path / "absent.nii"),)
    assert set(found["same_voxels"].where) == {str(paths[6]), str(paths[7])}


def test_bad_files_that_training_leaves_out_spoil_nothing(tmp_path):
    paths = write_clean_files(tmp_path)
    paths[0].write_bytes(b"junk")
    assert audit_manifest(manifest_of(paths)).spoils
    assert not audit_manifest(manifest_of(paths), skips_bad=True).spoils


def test_subjects_and_voxels_in_two_splits_and_files_under_two_labels_spoil(tmp_path):
    paths = write_clean_files(tmp_path, 4)
    write_nifti(tmp_path / "copy.nii", random_voxels(0).astype(np.float32))
    paths_listed = [*paths, tmp_path / "copy.nii", paths[3]]
    subjects = ["a", "b", "c", "b", "d", "b"]
    splits = ["train", "train", "val", "test", "test", "test"]
    found = by_kind(audit_manifest(manifest_of(paths_listed, [0, 1, 0, 1, 0, 0], subjects, splits)))
    assert found["subject_in_two_splits"].where == ("b",)
    assert found["two_labels"].where == (str(paths[3]),)
    for names in ("cat, dog", str(paths[3])):
        assert names in f"{found['two_labels'].message} {found['two_labels'].where}"
    for names in ("test, train", "a, d"):
        assert names in found["same_voxels"].message
    assigned = audit_manifest(
        manifest_of(paths, None, ["a", "a", "b", "c"]), splits=["train", "val", "val", "test"]
    )
    assert by_kind(assigned)["subject_in_two_splits"].where == ("a",)


def test_an_empty_mask_among_masks_differs_from_a_blank_image(tmp_path):
    masks = [np.zeros(SHAPE, np.uint8) for _ in range(6)]
    for position, mask in enumerate(masks[1:]):
        mask[position : position + 3, 2:4, 1:3] = 2
    files = [write_nifti(tmp_path / f"mask{index}.nii.gz", mask) for index, mask in enumerate(masks)]
    audit = audit_manifest(manifest_of(files))
    assert by_kind(audit).keys() == {"empty_mask"}
    assert by_kind(audit)["empty_mask"].where == (str(files[0]),)
    assert not audit.spoils
    blank = audit_manifest(manifest_of([files[0], *write_clean_files(tmp_path)]))
    assert "constant" in by_kind(blank)
    assert blank.spoils


def test_rows_are_flat_one_per_file(tmp_path):
    paths = write_clean_files(tmp_path, 2)
    paths[1].write_bytes(b"junk")
    rows = facts_rows(audit_manifest(manifest_of(paths)))
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    assert rows[0]["shape"] == "5x7x11"
    assert rows[0]["spacing"] == "3x2x1"
    assert rows[1]["error"]
    assert all(isinstance(value, (str, int, float)) for row in rows for value in row.values())


def test_masks_and_centres_that_select_nothing_are_findings(tmp_path):
    affine, away = np.diag([2.0, 1.5, 3.0, 1.0]), np.diag([2.0, 1.5, 3.0, 1.0])
    away[:3, 3] = 500
    inside = np.zeros((9, 8, 7), np.uint8)
    inside[2:5, 3, 4] = 1
    parted = inside.copy()
    parted[0, 0, 0] = 1
    files = {"good": (inside, affine), "parts": (parted, affine), "away": (inside, away)}
    files["empty"] = (np.zeros_like(inside), affine)
    files["coarse"] = (inside[::2], affine @ np.diag([2, 1, 1, 1]))
    masks = {name: tmp_path / f"{name}.nii" for name in (*files, "absent")}
    for name, (voxels, grid) in files.items():
        nib.save(nib.Nifti1Image(voxels, grid), masks[name])
    image = tmp_path / "image.nii"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(9, 8, 7)), affine), image)
    regions = [Region(mask=mask, name=name) for name, mask in masks.items()]
    regions += [Region(centre=(4.0, 3.0, 6.0), name="in"), Region(centre=(900.0, 0.0, 0.0), name="out")]
    records = tuple(
        Record("s", (image,), row % 2, None, row, region=region) for row, region in enumerate(regions)
    )
    audit = audit_manifest(Manifest(records, ("a", "b"), {}, tmp_path))
    found = {finding.kind: finding for finding in audit.findings}
    wanted = {"mask_off_grid": "away", "mask_empty": "empty", "mask_absent": "absent"}
    for kind, name in wanted.items():
        assert found[kind].where == (str(masks[name]),)
        assert found[kind].spoils
    assert found["centre_outside"].where == (str(image),)
    assert found["mask_resampled"].where == (str(masks["coarse"]),)
    assert found["mask_parts"].where == (str(masks["parts"]),)
    assert "two_labels" not in found  # lesions of one image have labels of their own
    good, parts = audit.regions[:2]
    assert good.volume_ml == pytest.approx(3 * 2 * 1.5 * 3 / 1000)
    assert good.extent_mm == pytest.approx((3, 1.5, 6))
    assert (good.components, parts.components) == (1, 2)
    skipping = audit_manifest(Manifest(records, ("a", "b"), {}, tmp_path), skips_bad=True)
    assert not any(finding.spoils for finding in skipping.findings if finding.kind in wanted)
