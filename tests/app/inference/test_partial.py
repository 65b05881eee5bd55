"""Finished rows outlive a kill, and only the same question finds them again."""

import csv

from voxlift.app.inference.loop import PartialTable, key_of

COLUMNS = ["subject", "image", "p", "reason"]


def row(name, reason=""):
    return {"subject": name, "image": f"{name}.nii", "p": 0.5, "reason": reason}


def open_table(folder, **question):
    return PartialTable(folder / "out.csv", columns=COLUMNS, question=question)


def test_rows_come_out_in_the_order_asked_for_and_nothing_else_stays(tmp_path):
    table = open_table(tmp_path)
    table.add([row("b"), row("c, with a comma")])
    table.add([row("a", "torn\nfile")])
    assert not (tmp_path / "out.csv").exists()
    table.finish([key_of(row(name)) for name in ("a", "b", "c, with a comma")])
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [one["subject"] for one in csv.DictReader(file)] == ["a", "b", "c, with a comma"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_killed_table_goes_on_without_its_torn_row_and_its_failures(tmp_path):
    table = open_table(tmp_path, tta="none")
    table.add([row("a"), row("b", "no such file"), row("c")])
    text = table.path.read_text(encoding="utf-8")
    table.path.write_text(text[:-4])  # the kill tore the last row
    again = open_table(tmp_path, tta="none")
    assert set(again.rows) == {("a", "a.nii")}
    again.add([row("b"), row("c")])
    assert len(again.finish([key_of(row(name)) for name in "abc"])) == 3


def test_another_question_starts_anew(tmp_path):
    open_table(tmp_path, tta="none").add([row("a")])
    assert open_table(tmp_path, tta="flips").rows == {}
    assert set(open_table(tmp_path, tta="none").rows) == {("a", "a.nii")}
