"""One person is one subject however the name is written, or the doubt is reported; no leak passes."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.manifest import (
    Manifest,
    Record,
    TableOptions,
    load_manifest,
    load_rows_unchecked,
)
from voxlift.data_pipelines.tables.subjects import (
    describe_several_labels,
    find_similar_subjects,
    find_voxel_leaks,
    refuse_leaks,
    unify_subjects,
)


def load(tmp_path, names, *, delimiter=",", reader=load_manifest):
    """Return the manifest of a table with one row per name of a subject."""
    rows = []
    for number, name in enumerate(names):
        (tmp_path / f"{number}.nii").touch()
        rows.append(delimiter.join((name, f"{number}.nii", "ab"[number % 2])))
    table = tmp_path / "t.csv"
    table.write_text("\n".join([delimiter.join(("who", "image", "label")), *rows]), encoding="utf-8")
    return reader(table, TableOptions(subject_column="who"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("7", "7.0"),
        ("7", "7.00"),
        ("p1", "p1\u00a0"),
        ("p1", "\u200bp1\u200b"),
        ("p1", "p1\ufeff"),
        ("p1", "p1 \u2060"),
        ("\u00e9", "e\u0301"),
        ("\u212b1", "\u00c51"),
    ],
)
def test_names_that_must_be_one_subject_are_one(tmp_path, first, second):
    for reader in (load_manifest, load_rows_unchecked):
        manifest = load(tmp_path, [first, second, "other"], reader=reader)
        assert len({record.subject for record in manifest.records}) == 2
        assert not manifest.notes


def test_a_decimal_comma_hides_no_whole_number(tmp_path):
    manifest = load(tmp_path, ["7", "7,0", "8"], delimiter=";")
    assert [record.subject for record in manifest.records] == ["7", "7", "8"]


def test_a_column_with_fractions_keeps_its_point_zero_and_reports_it(tmp_path):
    assert unify_subjects(["1.0", "1.1", "2"]) == ["1.0", "1.1", "2"]
    assert not load(tmp_path, ["1.0", "1.1", "2.0"]).notes


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("007", "7"),
        ("P01", "p01"),
        ("sub-01", "sub_1"),
        ("sub 01", "sub\u00a001"),
        ("s\u200b1", "s1"),
        ("\uff11\uff12", "12"),
        ("\u0410B1", "AB1"),
        ("Stra\u00dfe1", "STRASSE1"),
        ("1.2e+04", "12000"),
    ],
)
def test_names_that_may_be_one_subject_are_reported(tmp_path, first, second):
    for reader in (load_manifest, load_rows_unchecked):
        manifest = load(tmp_path, [first, second, "other"], reader=reader)
        assert len({record.subject for record in manifest.records}) == 3
        note = manifest.notes["similar_subjects"]
        assert repr(first) in note
        assert repr(second) in note


def test_names_of_other_letters_or_numbers_are_not_alike():
    different = ["1-11", "11-1", "111", "s1", "s11", "a1", "\u00e41", "1.1", "+", "-", "\u0663", "\u0664"]
    assert find_similar_subjects(different) == ()
    assert find_similar_subjects(["a1", "a1"]) == ()


def test_image_names_are_no_names_of_persons(tmp_path):
    (tmp_path / "A1.nii").touch()
    (tmp_path / "a01.nii").touch()
    (tmp_path / "t.csv").write_text("image,label\nA1.nii,x\na01.nii,y\n")
    for column in (None, "image"):
        assert not load_manifest(tmp_path / "t.csv", TableOptions(subject_column=column)).notes


def folders(root, names):
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "scan.nii").touch()
    return load_manifest(root)


@pytest.mark.parametrize("stem", ["patient00{}", "{}", "sub-0{}", "p{}", "case_{}"])
def test_numbering_that_starts_in_each_class_names_two_persons(tmp_path, stem):
    names = [f"{label}/{stem.format(number)}" for label in ("AD", "CN") for number in (1, 2, 3)]
    manifest = folders(tmp_path, names)
    assert [record.subject for record in manifest.records] == names
    assert stem.format(1) in manifest.notes["shared_folders"]


def test_an_identifier_in_two_classes_is_one_person_and_is_reported(tmp_path):
    manifest = folders(tmp_path, ["AD/002_S_0295", "CN/002_S_0295", "CN/005_S_0221"])
    assert [record.subject for record in manifest.records] == ["002_S_0295", "002_S_0295", "005_S_0221"]
    assert "002_S_0295" in manifest.notes["shared_folders"]


def test_a_subject_with_folders_in_one_class_is_not_reported(tmp_path):
    manifest = folders(tmp_path, ["AD/p1/t1", "AD/p1/t2", "CN/p2"])
    assert [record.subject for record in manifest.records] == ["p1", "p1", "p2"]
    assert not manifest.notes


@pytest.mark.parametrize("form", ["sub-01_ses-{}.nii", "x/sub-01/anat/{}.nii", "sub-01_run-{}_T1w.nii"])
def test_files_of_one_subject_by_their_names_are_reported(tmp_path, form):
    rows = ["image,label"]
    for number, label in enumerate("aab"):
        image = form.format(number) if number < 2 else "sub-02_T1w.nii"
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).touch()
        rows.append(f"{image},{label}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    manifest = load_manifest(tmp_path / "t.csv")
    assert "sub-01 (2)" in manifest.notes["files_of_one_subject"]
    options = TableOptions(subject_column="image")  # the user says that each file is a subject
    assert not load_manifest(tmp_path / "t.csv", options).notes


def test_files_of_one_subject_in_a_folder_per_class_are_reported(tmp_path):
    for name in ("AD/sub-01_T1w.nii", "AD/sub-01_T2w.nii", "CN/sub-02_T1w.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert "sub-01 (2)" in load_manifest(tmp_path).notes["files_of_one_subject"]


def test_subjects_with_scans_of_several_labels_are_named_once_with_what_follows():
    rows = [
        SimpleNamespace(subject=subject, label=label) for subject, label in (("a", 0), ("a", 1), ("b", 0))
    ]
    sentence = describe_several_labels(rows)
    assert sentence.startswith("1 of 2 subjects")
    assert "evaluation.paired_within=subject" in sentence
    assert describe_several_labels(rows[1:]) == ""


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
