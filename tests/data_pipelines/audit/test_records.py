from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from voxlift.data_pipelines.audit import audit_manifest
from voxlift.data_pipelines.audit.records import class_findings
from voxlift.data_pipelines.tables.manifest import Manifest, Record

SHAPE = (5, 7, 11)


def write(path, seed, shift=0.0, shape=SHAPE):
    voxels = np.random.default_rng(seed).integers(0, 200, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, nib.affines.from_matvec(np.eye(3), [shift, 0, 0])), path)
    return path


def two_channels(folder, shift, shape=SHAPE):
    """Six records of two channels; the second channel of the last one is elsewhere."""
    pairs = [(write(folder / f"{i}-a.nii", i), write(folder / f"{i}-b.nii", 10 + i)) for i in range(5)]
    pairs.append((write(folder / "5-a.nii", 5), write(folder / "5-b.nii", 15, shift, shape)))
    records = tuple(Record(f"s{i}", pair, i % 2, None, i) for i, pair in enumerate(pairs))
    return Manifest(records, ("cat", "dog"), {}, Path("table.csv"))


@pytest.mark.parametrize(("shift", "shape"), [(3.0, SHAPE), (0.0, (5, 7, 10))])
def test_channels_on_other_grids_are_one_finding(tmp_path, shift, shape):
    manifest = two_channels(tmp_path, shift, shape)
    found = [one for one in audit_manifest(manifest).findings if one.kind == "channels_off_grid"]
    assert len(found) == 1
    assert found[0].spoils
    assert "1 of 6 records" in found[0].message
    assert found[0].where == (str(tmp_path / "5-b.nii"),)
    assert not audit_manifest(manifest, same_grid=False).spoils


def test_channels_on_one_grid_and_unreadable_ones_are_no_such_finding(tmp_path):
    manifest = two_channels(tmp_path, 0.0)
    assert audit_manifest(manifest).findings == ()
    (tmp_path / "5-a.nii").unlink()
    assert {one.kind for one in audit_manifest(manifest).findings} == {"absent"}


def listed(labels, splits=None):
    records = tuple(
        Record(f"s{i}", (Path(f"{i}.nii"),), label, splits and splits[i], i) for i, label in enumerate(labels)
    )
    return Manifest(records, ("cat", "dog"), {}, Path("table.csv"))


def test_classes_too_small_to_split_are_found():
    found = {
        count: list(class_findings(listed([0, 0, 0] + [1] * count), [None] * (3 + count)))
        for count in (1, 2, 3)
    }
    assert [(one.kind, one.severity, one.spoils) for one in found[1]] == [("small_class", "error", True)]
    assert [(one.kind, one.severity, one.spoils) for one in found[2]] == [("small_class", "warning", False)]
    assert "class dog has 2 subjects" in found[2][0].message
    assert found[3] == []


def test_a_class_that_the_tables_own_split_does_not_train_is_found():
    splits = ["train", "val", "test", "test"]
    (found,) = class_findings(listed([0, 0, 0, 1], splits), splits)
    assert (found.kind, found.spoils) == ("untrained_class", True)
    assert list(class_findings(listed([0, 1, 0, 1], splits), ["train", "train", "val", "test"])) == []


def test_classes_that_differ_in_writing_alone_are_found():
    manifest = replace(listed([0, 1, 2, 3] * 3), classes=("Grade 1", "grade-1", "-1", "1"))
    (found,) = class_findings(manifest, [None] * 12)
    assert (found.kind, found.severity) == ("similar_classes", "warning")
    assert "'Grade 1' and 'grade-1'" in found.message


def test_a_number_for_a_label_is_one_finding():
    manifest = replace(listed([0, 1, 2, 3, 0, 0]), classes=("1.5", "2", "41", "57"))
    (found,) = class_findings(manifest, [None] * 6)
    assert (found.kind, found.spoils) == ("numeric_label", True)
    assert "a number of 4 values; 3 of them" in found.message
