from pathlib import Path

from app.subjects.splitting import say_splits
from data_pipelines.manifest import Manifest, Record


def test_each_class_is_one_line_with_its_subjects_and_more_volumes_in_brackets(capsys):
    owners = [("a", 0, "train"), ("a", 0, "train"), ("b", 1, "train"), ("c", 0, "test"), ("d", 1, "test")]
    records = tuple(
        Record(subject, (Path(f"/{row}.nii"),), label, None, row)
        for row, (subject, label, _) in enumerate(owners)
    )
    say_splits(Manifest(records, ("liver", "heart"), {}, Path("t.csv")), [split for *_, split in owners])
    lines = [line.replace("│", "").split() for line in capsys.readouterr().out.splitlines()]
    assert ["liver", "1", "(2", "volumes)", "1"] in lines
    assert ["heart", "1", "1"] in lines
