"""Promises of the audit: each kind of harm is found, told, and weighed; clean data is left in peace."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from voxlift.data_pipelines.audit import audit_manifest, check_readable, facts_rows, hash_voxels, read_facts
from voxlift.data_pipelines.audit.confounding import exact_association, separation
from voxlift.data_pipelines.tables.manifest import Manifest, Record

SHAPE = (5, 7, 11)
AFFINE = nib.affines.from_matvec(np.diag([1.5, 2.0, 3.0]), [-9, 8, 7])


def noise(seed, dtype="int16", shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def write(path, voxels, affine=AFFINE, change=None):
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, 1)
    if change:
        change(image)
    nib.save(image, path)
    return path


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


def clean_files(folder, count=6):
    return [write(folder / f"{index}.nii.gz", noise(index)) for index in range(count)]


def kinds(audit):
    return {finding.kind: finding for finding in audit.findings}


def test_clean_data_has_no_finding(tmp_path):
    audit = audit_manifest(manifest_of(clean_files(tmp_path)))
    assert audit.findings == ()
    assert not audit.spoils
    assert audit.suggested_spacing == (3.0, 2.0, 1.5)
    assert audit.suggested_shape == (16, 8, 8)


def test_all_findings_of_a_bad_data_set_come_at_once_worst_first(tmp_path):
    paths = clean_files(tmp_path, 8)
    paths[0].write_bytes(paths[0].read_bytes()[:200])
    write(paths[1], np.full(SHAPE, 3, np.int16))
    holes = noise(2, "float32")
    holes[0, 0, :2] = np.nan
    write(paths[2], holes)
    write(paths[3], np.full(SHAPE, np.nan, np.float32))
    write(paths[4], noise(4), change=lambda image: image.set_qform(np.eye(4), 1))
    write(paths[5], noise(5), np.diag([-1.5, 2.0, 9.0, 1.0]))
    write(paths[6], noise(7))
    write(tmp_path / "x.nii", noise(9)[..., None] * np.ones(2, np.int16))
    audit = audit_manifest(manifest_of([*paths, tmp_path / "x.nii"]), time_axis="channels")
    found = kinds(audit)
    spoiling = {"unreadable", "constant", "no_finite_voxel", "same_voxels", "mixed_channels"}
    telling = {"forms_conflict", "nonfinite", "spacing_outlier", "mixed_axcodes", "mixed_dtype"}
    assert spoiling | telling <= set(found)
    assert all(found[kind].spoils for kind in spoiling)
    assert not any(found[kind].spoils for kind in telling)
    assert audit.spoils
    assert [finding.spoils for finding in audit.findings] == sorted(
        (finding.spoils for finding in audit.findings), reverse=True
    )
    assert found["nonfinite"].where == (str(paths[2]),)
    assert "2 of 385 voxels" in found["nonfinite"].message
    assert found["no_finite_voxel"].where == (str(paths[3]),)
    assert found["unreadable"].where == (str(paths[0]),)
    assert "gzip stream is cut off" in found["unreadable"].message
    assert set(found["same_voxels"].where) == {str(paths[6]), str(paths[7])}
    assert found["spacing_outlier"].where == (str(paths[5]),)


def test_subjects_and_voxels_in_two_splits_and_files_under_two_labels_spoil(tmp_path):
    paths = clean_files(tmp_path, 4)
    write(tmp_path / "copy.nii", noise(0).astype(np.float32))
    listed = [*paths, tmp_path / "copy.nii", paths[3]]
    subjects = ["a", "b", "c", "b", "d", "b"]
    splits = ["train", "train", "val", "test", "test", "test"]
    found = kinds(audit_manifest(manifest_of(listed, [0, 1, 0, 1, 0, 0], subjects, splits)))
    assert found["subject_in_two_splits"].message == "subject b is in test, train"
    assert found["two_labels"].message == "the file is listed under cat, dog"
    assert "in the splits test, train" in found["same_voxels"].message
    assert "under the subjects a, d" in found["same_voxels"].message
    assigned = audit_manifest(
        manifest_of(paths, None, ["a", "a", "b", "c"]), splits=["train", "val", "val", "test"]
    )
    assert kinds(assigned)["subject_in_two_splits"].where == ("a",)


@pytest.mark.parametrize("what", ["spacing", "shape"])
def test_a_class_that_geometry_gives_away_is_found(tmp_path, what):
    paths = []
    for index in range(24):
        affine = np.diag([1.5, 2.0, 3.0 + (index % 2 == 0 and what == "spacing"), 1.0])
        shape = (5, 7, 11 + (index % 2 == 0 and what == "shape"))
        paths.append(write(tmp_path / f"{index}.nii", noise(index, shape=shape), affine))
    findings = [f for f in audit_manifest(manifest_of(paths)).findings if f.kind == "confounded"]
    assert len(findings) == 1  # of two classes, once
    assert all(finding.spoils and f"told from {what} along depth" in finding.message for finding in findings)


def test_a_class_that_its_stored_axes_give_away_is_found(tmp_path):
    paths = [
        write(tmp_path / f"{index}.nii", noise(index), np.diag([-1.5 if index % 2 else 1.5, 2.0, 3.0, 1.0]))
        for index in range(24)
    ]
    found = kinds(audit_manifest(manifest_of(paths)))
    assert "dog can be told from axcodes RAS (0% of it against 100%" in found["confounded"].message
    assert not found["confounded"].spoils


def test_an_empty_mask_among_masks_is_told_apart_from_a_blank_image(tmp_path):
    masks = [np.zeros(SHAPE, np.uint8) for _ in range(6)]
    for place, mask in enumerate(masks[1:]):
        mask[1:3, 2:4, place : place + 3] = 2
    files = [write(tmp_path / f"mask{index}.nii.gz", mask) for index, mask in enumerate(masks)]
    audit = audit_manifest(manifest_of(files))
    assert kinds(audit).keys() == {"empty_mask"}
    assert kinds(audit)["empty_mask"].where == (str(files[0]),)
    assert not audit.spoils
    blank = audit_manifest(manifest_of([files[0], *clean_files(tmp_path)]))
    assert "constant" in kinds(blank)
    assert blank.spoils


def test_separation_and_association_agree_with_counting():
    labels = np.array([0, 0, 1, 1])
    assert separation(np.array([1.0, 2.0, 3.0, 4.0]), labels, 1) == (1.0, pytest.approx(1 / 3))
    assert separation(np.array([1.0, 3.0, 2.0, 4.0]), labels, 0)[0] == 0.75
    assert separation(np.ones(4), labels, 0) == (0.5, 1.0)
    assert separation(np.arange(4.0), np.zeros(4), 0) == (0.5, 1.0)
    assert exact_association(np.array([True, True, False, False]), labels, 0) == pytest.approx(1 / 3)
    assert exact_association(np.ones(4, bool), labels, 0) == 1.0


def test_the_hash_is_of_the_voxels_not_of_the_file(tmp_path):
    first = hash_voxels(write(tmp_path / "a.nii.gz", noise(0)))
    image = nib.Nifti1Image(noise(0), AFFINE)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt("PIL"))
    nib.save(turned, tmp_path / "turned.nii")
    scaled = nib.Nifti1Image(noise(0) * np.int16(2), AFFINE)
    scaled.header.set_slope_inter(0.5, 0)
    nib.save(scaled, tmp_path / "scaled.nii")
    write(tmp_path / "float.nii", noise(0, "float64"))
    write(tmp_path / "moved.nii", noise(0), np.diag([3.0, 3.0, 3.0, 1.0]))
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(tmp_path / "a.nii.gz")), str(tmp_path / "a.nrrd"))
    for name in ("turned.nii", "scaled.nii", "float.nii", "moved.nii", "a.nrrd"):
        assert hash_voxels(tmp_path / name) == first, name
    changed = noise(0)
    changed[1, 2, 3] += 1
    assert hash_voxels(write(tmp_path / "b.nii", changed)) != first
    assert hash_voxels(write(tmp_path / "flip.nii", noise(0)[::-1])) != first


def test_check_readable_names_every_bad_file_and_reports_progress(tmp_path):
    paths = clean_files(tmp_path, 3)
    paths[0].write_bytes(b"junk")
    seen = []
    bad = check_readable(
        [*paths, tmp_path / "absent.nii"], progress=lambda done, total: seen.append((done, total))
    )
    assert list(bad) == [paths[0], tmp_path / "absent.nii"]
    assert "no such file" in bad[tmp_path / "absent.nii"]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_facts_are_in_ras_and_thumbnails_show_the_head_up(tmp_path):
    voxels = np.zeros((10, 12, 30), np.int16)
    voxels[:, :, 20:] = 100
    turned = nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 1.0, 1.0])).as_reoriented(
        nib.orientations.axcodes2ornt("SPL")
    )
    nib.save(turned, tmp_path / "a.nii.gz")
    facts = read_facts(tmp_path / "a.nii.gz", thumbnails=True)
    assert (facts.shape, facts.spacing) == ((30, 12, 10), (1.0, 2.0, 2.0))
    assert (facts.minimum, facts.maximum, facts.nonfinite, facts.channels) == (0, 100, 0, 1)
    axial, coronal, sagittal = facts.thumbnails
    assert all(picture.dtype == np.uint8 and max(picture.shape) == 96 for picture in facts.thumbnails)
    assert coronal.shape == (96, 64)
    assert sagittal.shape == (96, 77)
    assert (coronal[:30] == 255).all()
    assert (coronal[-60:] == 0).all()
    assert axial.max() == axial.min()


def test_the_picture_of_a_sparse_mask_shows_where_it_is(tmp_path):
    mask = np.zeros((20, 24, 28), np.uint8)
    mask[2:5, 18:20, 3:6] = 1
    mask[10, 12, 14] = 1  # a stray voxel in the middle is not what a person wants to see
    facts = read_facts(write(tmp_path / "mask.nii.gz", mask, np.eye(4)), thumbnails=True)
    shown = [int((picture > 0).sum()) / picture.size for picture in facts.thumbnails]
    np.testing.assert_allclose(shown, [6 / 480, 9 / 560, 6 / 672], rtol=0.5)
    assert all(picture.any() for picture in facts.thumbnails)
    empty = read_facts(write(tmp_path / "empty.nii.gz", mask * 0, np.eye(4)), thumbnails=True)
    assert not any(picture.any() for picture in empty.thumbnails)


def test_tilt_and_shear_are_measured(tmp_path):
    tilted = nib.affines.from_matvec(nib.eulerangles.euler2mat(np.radians(10)) * 2, [0, 0, 0])
    sheared = tilted.copy()
    sheared[:3, 2] += 0.2 * sheared[:3, 1]
    facts = read_facts(write(tmp_path / "a.nii", noise(0), tilted))
    assert facts.tilt_degrees == pytest.approx(10, abs=1e-3)
    assert not facts.is_sheared
    assert read_facts(write(tmp_path / "b.nii", noise(0), sheared)).is_sheared


def test_rows_are_flat_one_per_file(tmp_path):
    paths = clean_files(tmp_path, 2)
    paths[1].write_bytes(b"junk")
    rows = facts_rows(audit_manifest(manifest_of(paths)))
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    assert rows[0]["shape"] == "11x7x5"
    assert rows[0]["spacing"] == "3x2x1.5"
    assert rows[1]["error"]
    assert all(isinstance(value, (str, int, float)) for row in rows for value in row.values())
