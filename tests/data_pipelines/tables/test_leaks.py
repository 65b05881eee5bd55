"""A subject or a volume in two splits is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.manifest import Manifest, Record
from voxlift.data_pipelines.tables.subjects import find_voxel_leaks, refuse_leaks


@pytest.fixture
def manifest(tmp_path):
    for name, voxels in (("a", "1"), ("b", "2"), ("c", "1"), ("d", "3")):
        (tmp_path / name).write_text(voxels)
    records = tuple(Record(name, (tmp_path / name,), row % 2, None, row) for row, name in enumerate("abcd"))
    return Manifest(records, ("x", "y"), {}, Path("t.csv"))


def test_the_same_voxels_in_two_splits_are_refused_with_both_names(manifest):
    hashes = ["1", "2", "1", "3"]
    refuse_leaks(manifest, ["train", "test", "train", "val"], hashes=hashes)
    with pytest.raises(ManifestError, match=r"/a \(train\).*/c \(test\)"):
        refuse_leaks(manifest, ["train", "test", "test", "val"], hashes=hashes)


def test_a_subject_in_two_splits_is_refused(manifest):
    records = tuple(replace(record, subject="s1" if record.row < 3 else "s2") for record in manifest.records)
    leaking = replace(manifest, records=records)
    refuse_leaks(leaking, ["train", "train", "train", "test"])
    with pytest.raises(ManifestError, match=r"2 .*subject s1: .*/a \(train\).*/b \(val\)"):
        refuse_leaks(leaking, ["train", "val", "test", "test"])


def test_voxel_leaks_are_the_records_of_equal_hash_in_other_splits(manifest):
    hashes = ["1+2", "1+3", "1+2", "3"]
    leaks = find_voxel_leaks(manifest, ["train", "val", "test", "val"], hashes=hashes)
    assert [(leak.first.subject, leak.second.subject) for leak in leaks] == [("a", "c")]
