"""Channels on different grids and classes that cannot be trained are found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scans import SHAPE, random_voxels, write_nifti, write_scan
from voxlift.data_pipelines.audit import audit_manifest
from voxlift.data_pipelines.audit.findings import check_classes
from voxlift.data_pipelines.tables.manifest import Manifest, Record


def write_two_channels(folder, shift, shape=SHAPE):
    """Write six records of two channels; the second channel of the last one has another grid."""
    pairs = [
        (write_scan(folder / f"{i}-a.nii", i), write_scan(folder / f"{i}-b.nii", 10 + i)) for i in range(6)
    ]
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[0, 3] = shift
    write_nifti(folder / "5-b.nii", random_voxels(15, shape=shape), affine)
    records = tuple(Record(f"s{i}", pair, i % 2, None, i) for i, pair in enumerate(pairs))
    return Manifest(records, ("cat", "dog"), {}, Path("table.csv"))


@pytest.mark.parametrize(("shift", "shape"), [(3.0, SHAPE), (0.0, (11, 7, 4))])
def test_channels_on_other_grids_are_one_finding(tmp_path, shift, shape):
    manifest = write_two_channels(tmp_path, shift, shape)
    (found,) = [one for one in audit_manifest(manifest).findings if one.kind == "channels_off_grid"]
    assert found.spoils
    assert "1 of 6" in found.message
    assert found.where == (str(tmp_path / "5-b.nii"),)
    assert not audit_manifest(manifest, same_grid=False).spoils


def test_channels_on_one_grid_and_unreadable_ones_are_no_such_finding(tmp_path):
    manifest = write_two_channels(tmp_path, 0.0)
    assert audit_manifest(manifest).findings == ()
    (tmp_path / "5-a.nii").unlink()
    assert {one.kind for one in audit_manifest(manifest).findings} == {"absent"}


def manifest_of(labels, splits=None):
    records = tuple(
        Record(f"s{i}", (Path(f"{i}.nii"),), label, splits and splits[i], i) for i, label in enumerate(labels)
    )
    return Manifest(records, ("cat", "dog"), {}, Path("table.csv"))


def test_classes_too_small_to_split_are_found():
    for count, expected in (
        (1, [("small_class", "error", True)]),
        (2, [("small_class", "warning", False)]),
        (3, []),
    ):
        found = list(check_classes(manifest_of([0, 0, 0] + [1] * count), [None] * (3 + count)))
        assert [(one.kind, one.severity, one.spoils) for one in found] == expected
        assert all(f"dog has {count}" in one.message and len(one.where) == count for one in found)


def test_a_class_that_the_tables_own_split_does_not_train_is_found():
    splits = ["train", "val", "test", "test"]
    (found,) = check_classes(manifest_of([0, 0, 0, 1], splits), splits)
    assert (found.kind, found.spoils) == ("untrained_class", True)
    assert list(check_classes(manifest_of([0, 1, 0, 1], splits), ["train", "train", "val", "test"])) == []


def test_classes_that_differ_only_in_spelling_are_found():
    manifest = replace(manifest_of([0, 1, 2, 3] * 3), classes=("Grade 1", "grade-1", "-1", "1"))
    (found,) = check_classes(manifest, [None] * 12)
    assert (found.kind, found.severity) == ("similar_classes", "warning")
    assert "'Grade 1' and 'grade-1'" in found.message


def test_a_number_for_a_label_is_one_finding():
    manifest = replace(manifest_of([0, 1, 2, 3, 0, 0]), classes=("1.5", "2", "41", "57"))
    (found,) = check_classes(manifest, [None] * 6)
    assert (found.kind, found.spoils) == ("numeric_label", True)
    assert "4" in found.message
    assert "3" in found.message


def test_classes_that_are_one_number_are_found():
    manifest = replace(manifest_of([0, 1, 2, 3] * 3), classes=("1.5", "1.50", "7", "70"))
    (found,) = check_classes(manifest, [None] * 12)
    assert (found.kind, "'1.50'" in found.message) == ("similar_classes", True)


def test_an_image_of_a_single_slice_is_named_with_its_shape(tmp_path):
    paths = [write_scan(tmp_path / f"{i}.nii", i) for i in range(6)]
    write_nifti(paths[2], random_voxels(9, shape=(11, 7, 1)))
    records = tuple(Record(f"s{i}", (path,), i % 2, None, i) for i, path in enumerate(paths))
    found = audit_manifest(Manifest(records, ("cat", "dog"), {}, Path("table.csv"))).findings
    (single,) = [one for one in found if one.kind == "single_slice"]
    assert single.where == (str(paths[2]),)
    assert "1x7x11" in single.message
    assert not single.spoils
