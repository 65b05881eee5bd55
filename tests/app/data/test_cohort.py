"""A cohort: no leak passes, a bad file stops the run or is left out, and every file is decoded once."""

import logging
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from commands import run_python
from scans import SHAPE, write_scan
from voxlift.app.config import DataSettings, PreprocessSettings, SettingsError, SplitSettings, TrainSettings
from voxlift.app.data.cohort import (
    exclude_outer_fold,
    gather_cohort,
    prepare_cohort,
    print_splits,
    split_subjects,
)
from voxlift.app.data.sources import load_subjects
from voxlift.app.files import read_rows
from voxlift.app.runs.cohort import read_training_range, warn_about_images, write_cohort, write_training_range
from voxlift.app.runs.folder import RunFolder
from voxlift.app.tasks.base import find_task, task_of
from voxlift.data_pipelines.audit.prepared import find_training_range
from voxlift.data_pipelines.readers.nifti import read_nifti
from voxlift.data_pipelines.tables.manifest import Manifest, ManifestError, Record
from voxlift.data_pipelines.volume import VolumeError


@pytest.fixture
def folder(tmp_path):
    rows = ["file,label,subject,split"]
    for index in range(12):
        write_scan(tmp_path / f"{index}.nii.gz", index)
        split = ("train", "train", "val", "val", "test", "test")[index % 6]
        rows.append(f"{index}.nii.gz,{'ab'[index % 2]},s{index},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def settings_of(folder, **data):
    columns = {"image_column": "file", "subject_column": "subject", "split_column": "split"}
    return TrainSettings(
        data=DataSettings(name="manifest", table=str(folder / "labels.csv"), **columns, **data),
        preprocess=PreprocessSettings(name="none", shape=[5, 7, 11]),
    )


def gather(folder, **data):
    settings = settings_of(folder, **data)
    settings.cache.folder, settings.cache.workers = str(folder / "cache"), 2
    return gather_cohort(settings)


def test_clean_files_become_a_cohort(folder):
    cohort = gather(folder)
    assert cohort.shape == (5, 7, 11, 1)
    assert [len(cohort.indices(split)) for split in ("train", "val", "test")] == [4, 4, 4]
    assert cohort.left_out == ()


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files decoded so far, in order."""
    names = []

    def count(path, **settings):
        names.append(path.name)
        return read_nifti(path, **settings)

    monkeypatch.setattr("voxlift.data_pipelines.readers.load.read_nifti", count)
    return names


def describe(folder, cohort):
    """What a training writes about its volumes before the first epoch."""
    run = RunFolder(folder / "run")
    run.path.mkdir(exist_ok=True)
    warn_about_images(cohort, write_training_range(cohort, run))
    return run.training_range.read_bytes()


def test_a_first_run_decodes_each_file_once_and_a_second_none(folder, decoded):
    first = describe(folder, gather(folder))
    assert sorted(decoded) == sorted(f"{index}.nii.gz" for index in range(12))
    decoded.clear()
    assert describe(folder, gather(folder)) == first
    assert decoded == []


def test_the_training_range_is_read_back_as_it_was_written(folder):
    cohort, run = gather(folder), RunFolder(folder)
    summaries = write_training_range(cohort, run)
    assert len(summaries) == len(cohort.indices("train"))
    assert read_training_range(run) == find_training_range(summaries)
    run.training_range.write_text('{"volumes": 4}')
    with pytest.raises(SettingsError, match=r"training_range\.json"):
        read_training_range(run)


def test_a_cache_without_metadata_is_completed_by_decoding_once(folder, decoded):
    first = describe(folder, gather(folder))
    for file in (folder / "cache").glob("*.uint8.json"):
        file.unlink()
    decoded.clear()
    assert describe(folder, gather(folder)) == first
    assert sorted(decoded) == sorted(f"{index}.nii.gz" for index in range(12))
    decoded.clear()
    gather(folder)
    assert decoded == []


def test_the_same_voxels_in_two_splits_are_refused_also_in_a_second_run(folder, decoded):
    write_scan(folder / "4.nii.gz", 0, np.float32)  # another type, another name, another split
    for _ in range(2):
        with pytest.raises(ManifestError, match=r"1 pair.* .*/0\.nii\.gz \(train\) .*4\.nii\.gz \(test\)"):
            gather(folder)
    assert len(decoded) == 12


def test_a_subject_in_two_splits_is_refused_before_any_file_is_read(folder, decoded):
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace(",s4,", ",s0,"))
    with pytest.raises(ManifestError, match="s0"):
        gather(folder)
    assert decoded == []


def test_the_same_voxels_in_one_split_are_no_leak(folder):
    write_scan(folder / "1.nii.gz", 0)
    assert len(gather(folder).records) == 12


def test_blank_images_are_not_taken_for_copies(folder):
    for index in (0, 4):
        nib.save(
            nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.diag([1.0, 2.0, 3.0, 1.0])),
            folder / f"{index}.nii.gz",
        )
    assert len(gather(folder).records) == 12


def test_a_leak_through_a_repaired_file_is_found(folder):
    (folder / "4.nii.gz").write_bytes(b"junk")
    assert len(gather(folder, on_bad_file="skip").records) == 11
    write_scan(folder / "4.nii.gz", 0)
    with pytest.raises(ManifestError, match=r"4\.nii\.gz"):
        gather(folder)


def test_bad_files_stop_the_run_and_all_are_named(folder):
    (folder / "3.nii.gz").write_bytes(b"junk")
    whole = (folder / "7.nii.gz").read_bytes()
    (folder / "7.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VolumeError, match=r"2 image\(s\)") as caught:
        gather(folder)
    assert "3.nii.gz" in str(caught.value)
    assert "7.nii.gz" in str(caught.value)
    assert "data.on_bad_file=skip" in str(caught.value)


def test_skipped_files_are_left_out_logged_and_written(folder, caplog):
    (folder / "3.nii.gz").write_bytes(b"junk")
    with caplog.at_level(logging.INFO, logger="voxlift"):
        cohort = gather(folder, on_bad_file="skip")
    assert re.search(r"1 bad file.*\((train|val|test) 1\).*left_out\.csv", caplog.text)
    assert [record.subject for record in cohort.records] == [f"s{i}" for i in range(12) if i != 3]
    assert len(cohort.files) == len(cohort.splits) == 11
    assert (cohort.left_out[0]["subject"], cohort.left_out[0]["image"]) == ("s3", str(folder / "3.nii.gz"))
    run = RunFolder(folder)
    write_cohort(cohort, run)
    assert [row["subject"] for row in read_rows(run.left_out)] == ["s3"]
    assert len(read_rows(run.splits)) == 11


def test_nothing_left_to_train_on_stops_even_where_bad_files_are_skipped(folder):
    path = folder / "bad.nii.gz"
    path.write_bytes(b"junk")
    settings = settings_of(folder, on_bad_file="skip")
    settings.cache.folder = str(folder / "cache")
    with pytest.raises(VolumeError, match=r"1 image\(s\)"):
        prepare_cohort([Record("s", (path,), 0, None, 2)], ("a", "b"), ("train",), settings=settings)


def test_rows_without_a_usable_label_are_counted_in_the_log(folder, caplog):
    with (folder / "labels.csv").open("a") as table:
        table.write("\n0.nii.gz,n/a,s0,train\n1.nii.gz,c,s1,train")
    with caplog.at_level(logging.INFO, logger="voxlift"):
        cohort = gather(folder, classes=["a", "b"])
    assert len(cohort.records) == 12
    assert "label missing (1)" in caplog.text
    assert "label 'c' is not a class (1)" in caplog.text


def parts(folder, **splits):
    """Subjects per split, without the table's own split column."""
    settings = settings_of(folder)
    settings.data.split_column = None
    settings.seed = splits.pop("seed", 0)
    settings.splits = SplitSettings(**{"val": 0.2} | splits)
    manifest = exclude_outer_fold(load_subjects(settings.data, task_of(settings)), settings)
    found = split_subjects(manifest, settings)
    return {
        name: {r.subject for r, split in zip(manifest.records, found, strict=True) if split == name}
        for name in ("train", "val", "test")
    }


@pytest.fixture
def many(tmp_path):
    write_scan(tmp_path / "a.nii.gz", 0)
    rows = ["file,label,subject"]
    for index in range(40):
        (tmp_path / f"{index}.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes())
        rows.append(f"{index}.nii.gz,{'ab'[index % 2]},s{index}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def test_repeated_cross_validation_tests_everybody_once_per_seed_and_deals_anew(many):
    first, second = (
        [frozenset(parts(many, folds=5, fold=fold, seed=seed)["test"]) for fold in range(5)]
        for seed in (0, 1)
    )
    for repeat in (first, second):
        assert sorted(name for part in repeat for name in part) == sorted(f"s{i}" for i in range(40))
    assert set(first) != set(second)


@pytest.mark.parametrize("val", [0.1, 0.3])
def test_nested_cross_validation_is_composed_of_outer_and_inner_folds(many, val):
    for outer in range(5):
        tested = parts(many, folds=5, fold=outer, val=val)["test"]
        inner = [parts(many, folds=4, fold=k, outer_folds=5, outer_fold=outer, val=val) for k in range(4)]
        assert all(not tested & set.union(*each.values()) for each in inner)
        union = [name for each in inner for name in each["test"]]
        assert sorted(union) == sorted({f"s{i}" for i in range(40)} - tested)


def test_without_outer_folds_nobody_is_excluded(many):
    assert len(set.union(*parts(many).values())) == 40


def test_an_absent_image_is_a_bad_file_like_others(folder):
    (folder / "3.nii.gz").unlink()
    with pytest.raises(ManifestError, match=r"data\.on_bad_file=skip"):
        gather(folder)
    cohort = gather(folder, on_bad_file="skip")
    assert len(cohort.records) == 11
    assert "3.nii.gz" in cohort.left_out[0]["reason"]


def test_a_leak_is_found_without_tensorflow(folder):
    write_scan(folder / "4.nii.gz", 0)
    code = f"""
import sys
from pathlib import Path

sys.path.append({str(Path(__file__).parent)!r})
from test_cohort import gather
from voxlift.data_pipelines.errors import ManifestError

try:
    gather(Path.cwd())
except ManifestError as error:
    print(error)
print([name for name in ("tensorflow", "keras") if name in sys.modules])
"""
    *_, error, imported = run_python("-c", code, cwd=folder).stdout.splitlines()
    assert "0.nii.gz (train)" in error
    assert "4.nii.gz (test)" in error
    assert imported == "[]"


def test_a_class_without_a_usable_training_image_is_refused_where_bad_files_are_skipped(folder):
    for index in (1, 7):  # the training images of class b
        (folder / f"{index}.nii.gz").write_bytes(b"damaged")
    with pytest.raises(VolumeError, match="class b:"):
        gather(folder, on_bad_file="skip")


def test_each_class_has_a_row_with_its_subjects_and_volumes_per_split(capsys):
    owners = [("a", 0, "train"), ("a", 0, "train"), ("b", 1, "train"), ("c", 0, "test"), ("d", 1, "test")]
    records = tuple(
        Record(subject, (Path(f"/{row}.nii"),), label, None, row)
        for row, (subject, label, _) in enumerate(owners)
    )
    print_splits(
        Manifest(records, ("liver", "heart"), {}, Path("t.csv")),
        [split for *_, split in owners],
        choice=SplitSettings(),
    )
    lines = [line.replace("│", "").split() for line in capsys.readouterr().out.splitlines()]
    numbers = {
        line[0]: [word.strip("()") for word in line[1:] if word.strip("()").isdigit()]
        for line in lines
        if line
    }
    assert numbers["liver"] == ["1", "2", "1"]
    assert numbers["heart"] == ["1", "1"]


def test_many_subjects_of_each_class_are_a_line_unless_the_table_is_asked_for(capsys):
    records = tuple(Record(f"s{row}", (Path(f"/{row}.nii"),), row % 2, None, row) for row in range(60))
    manifest = Manifest(records, ("liver", "heart"), {}, Path("t.csv"))
    splits = ["train"] * 20 + ["val"] * 20 + ["test"] * 20
    print_splits(manifest, splits, choice=SplitSettings())
    (line,) = capsys.readouterr().out.splitlines()
    assert [word for word in line.replace(",", "").split() if word.isdigit()] == ["20", "20", "20", "10"]
    print_splits(manifest, splits, choice=SplitSettings(), is_verbose=True)
    assert len(capsys.readouterr().out.splitlines()) > 4


@pytest.mark.parametrize(("folds", "title"), [(0, "Splits"), (5, "splits.fold=2")])
def test_the_title_names_the_fold(capsys, folds, title):
    records = tuple(Record(f"s{row}", (Path(f"/{row}.nii"),), row % 2, None, row) for row in range(6))
    manifest = Manifest(records, ("liver of a whale", "heart of a whale"), {}, Path("t.csv"))
    print_splits(manifest, ["train", "val", "test"] * 2, choice=SplitSettings(folds=folds, fold=2))
    assert title in " ".join(capsys.readouterr().out.split())


def test_class_names_are_printed_as_they_are(capsys):
    classes = ("[/x]", ":x:", "${AD}", "[bold]b")
    records = tuple(Record(f"s{row}", (Path(f"/{row}.nii"),), row % 4, None, row) for row in range(12))
    splits = ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    print_splits(Manifest(records, classes, {}, Path("t.csv")), splits, choice=SplitSettings())
    printed = capsys.readouterr().out
    assert all(name in printed for name in classes)


def test_the_fewest_subjects_of_a_split_are_those_of_the_task():
    rows = [("a", 0.0, "train"), ("a", 1.0, "train"), ("b", 1.0, "train"), ("c", 1.0, "train")]
    rows += [("d", 0.0, "val"), ("e", 0.0, "val"), ("f", 1.0, "val"), ("g", 1.0, "val"), ("h", 1.0, "val")]
    splits = [split for *_, split in rows]
    records = tuple(
        Record(subject, (Path(f"/{row}.nii"),), int(value), None, row, targets=(value,))
        for row, (subject, value, _) in enumerate(rows)
    )
    manifest = Manifest(records, ("liver", "heart"), {}, Path("t.csv"))
    assert find_task("classes").fewest_subjects(manifest, splits)[0] == 1  # subject a alone has class 0
    one = Manifest(records, ("liver",), {}, Path("t.csv"))
    assert find_task("findings").fewest_subjects(one, splits)[0] == 1
    assert find_task("number").fewest_subjects(one, splits)[0] == 3  # a, b, c; a has two volumes
