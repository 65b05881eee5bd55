from pathlib import Path

import pytest

from voxlift.app.config import SplitSettings
from voxlift.app.data.cohort import print_splits
from voxlift.app.tasks.base import find_task
from voxlift.data_pipelines.tables.manifest import Manifest, Record


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
