from pathlib import Path

import pytest

from voxlift.app.config import SplitSettings
from voxlift.app.data.cohort import print_splits
from voxlift.data_pipelines.tables.manifest import Manifest, Record


def test_each_class_is_one_line_with_its_subjects_and_more_volumes_in_brackets(capsys):
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
    assert ["liver", "1", "(2", "volumes)", "1"] in lines
    assert ["heart", "1", "1"] in lines


@pytest.mark.parametrize(("folds", "told"), [(0, "Splits, by subject"), (5, "splits.fold=2 of 0 to 4")])
def test_a_fold_is_named_among_the_others(capsys, folds, told):
    records = tuple(Record(f"s{row}", (Path(f"/{row}.nii"),), row % 2, None, row) for row in range(6))
    manifest = Manifest(records, ("liver of a whale", "heart of a whale"), {}, Path("t.csv"))
    print_splits(manifest, ["train", "val", "test"] * 2, choice=SplitSettings(folds=folds, fold=2))
    assert told in " ".join(capsys.readouterr().out.split())
