"""A subject or a volume in two splits is refused, and hashes are computed once."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.leaks import find_voxel_leaks, hash_records, refuse_leaks
from voxlift.data_pipelines.tables.manifest import Manifest, Record


@pytest.fixture
def manifest(tmp_path):
    for name, voxels in (("a", "1"), ("b", "2"), ("c", "1"), ("d", "3")):
        (tmp_path / name).write_text(voxels)
    records = tuple(Record(name, (tmp_path / name,), row % 2, None, row) for row, name in enumerate("abcd"))
    return Manifest(records, ("x", "y"), {}, Path("t.csv"))


class Reader:
    """A hash function that records which files it read."""

    def __init__(self):
        self.read = []

    def __call__(self, path):
        self.read.append(path.name)
        return path.read_text(encoding="utf-8")


def test_the_same_voxels_in_two_splits_are_refused_with_both_names(manifest):
    hashes = hash_records(manifest.records, hash_file=Reader())
    refuse_leaks(manifest, ["train", "test", "train", "val"], hashes=hashes)
    with pytest.raises(ManifestError, match=r"/a \(train\).*/c \(test\)"):
        refuse_leaks(manifest, ["train", "test", "test", "val"], hashes=hashes)


def test_a_subject_in_two_splits_is_refused(manifest):
    records = tuple(replace(record, subject="s1" if record.row < 3 else "s2") for record in manifest.records)
    leaking = replace(manifest, records=records)
    refuse_leaks(leaking, ["train", "train", "train", "test"])
    with pytest.raises(ManifestError, match=r"2 .*subject s1: .*/a \(train\).*/b \(val\)"):
        refuse_leaks(leaking, ["train", "val", "test", "test"])


def test_records_match_only_when_all_channels_do(manifest):
    a, b, c, d = (record.images[0] for record in manifest.records)
    records = tuple(
        replace(record, images=images)
        for record, images in zip(manifest.records, [(a, b), (a, d), (c, b), (d,)], strict=True)
    )
    hashes = hash_records(records, hash_file=Reader())
    leaks = find_voxel_leaks(
        replace(manifest, records=records), ["train", "val", "test", "val"], hashes=hashes
    )
    assert [(leak.first.subject, leak.second.subject) for leak in leaks] == [("a", "c")]


def test_a_second_run_reads_only_what_changed(manifest, tmp_path):
    cache = tmp_path / "cache" / "hashes.json"
    first, second, third = Reader(), Reader(), Reader()
    before = hash_records(manifest.records, hash_file=first, cache=cache)
    assert sorted(first.read) == ["a", "b", "c", "d"]
    assert hash_records(manifest.records, hash_file=second, cache=cache) == before
    assert second.read == []
    # Of the same size, so that only the modification time differs.
    (tmp_path / "b").write_text("9")
    os.utime(tmp_path / "b", ns=(1, 1))
    assert hash_records(manifest.records, hash_file=third, cache=cache) == ("1", "9", "1", "3")
    assert third.read == ["b"]


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_cache_is_read_anew(manifest, tmp_path, content):
    (tmp_path / "hashes.json").write_text(content)
    assert hash_records(manifest.records, hash_file=Reader(), cache=tmp_path / "hashes.json") == (
        "1",
        "2",
        "1",
        "3",
    )


def test_a_changed_slice_of_a_series_is_noticed(tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    (series / "1.dcm").write_text("old")
    record = Record("s", (series,), 0, None, 1)
    settings = {
        "hash_file": lambda folder: (folder / "1.dcm").read_text(encoding="utf-8"),
        "cache": tmp_path / "hashes.json",
    }
    assert hash_records([record], **settings) == ("old",)
    (series / "1.dcm").write_text("newer")
    assert hash_records([record], **settings) == ("newer",)


def test_unreadable_images_equal_no_other_and_are_tried_again(manifest, tmp_path):
    cache = tmp_path / "hashes.json"
    hashes = hash_records(manifest.records, hash_file=lambda _path: None, cache=cache)
    assert len(set(hashes)) == len(manifest.records)
    again = hash_records(manifest.records, hash_file=Reader(), cache=cache)
    assert again[0] == again[2] == "1"


def test_hashes_that_cannot_be_kept_are_no_error(manifest, tmp_path):
    hashes = hash_records(
        manifest.records, hash_file=Reader(), cache=tmp_path / "a" / "hashes.json"
    )  # a is a file
    assert hashes == hash_records(manifest.records, hash_file=Reader())
