"""Finished rows survive a kill, and only a prediction with the same inputs finds them again."""

import csv
import os
import time

import pytest

from voxlift.app.inference.predict import PartialTable

COLUMNS = ["subject", "image", "p", "reason"]


def row(name, reason=""):
    return {"subject": name, "image": f"{name}.nii", "p": 0.5, "reason": reason}


def key(name):
    return name, f"{name}.nii"


@pytest.fixture
def images(tmp_path, monkeypatch):
    """The images that the rows of tests name."""
    monkeypatch.chdir(tmp_path)
    files = {name: tmp_path / f"{name}.nii" for name in ("a", "b", "c")}
    for file in files.values():
        file.touch()
    return files


def open_table(folder, **inputs):
    return PartialTable(folder / "out.csv", columns=COLUMNS, inputs=inputs)


def test_rows_are_written_in_the_requested_order_and_no_other_file_stays(tmp_path):
    table = open_table(tmp_path)
    table.add([row("b"), row("c, with a comma")])
    table.add([row("a", "damaged\nfile")])
    assert not (tmp_path / "out.csv").exists()
    table.finish([key(name) for name in ("a", "b", "c, with a comma")])
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [one["subject"] for one in csv.DictReader(file)] == ["a", "b", "c, with a comma"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.usefixtures("images")
def test_a_killed_table_resumes_without_its_incomplete_row_and_its_failures(tmp_path):
    table = open_table(tmp_path, tta="none")
    table.add([row("a"), row("b", "no such file"), row("c")])
    text = table.path.read_text(encoding="utf-8")
    table.path.write_text(text[:-4])  # the kill cut the last row
    again = open_table(tmp_path, tta="none")
    assert set(again.rows) == {("a", "a.nii")}
    again.add([row("b"), row("c")])
    assert len(again.finish([key(name) for name in "abc"])) == 3


@pytest.mark.usefixtures("images")
def test_other_inputs_start_a_new_table(tmp_path):
    open_table(tmp_path, tta="none").add([row("a")])
    assert open_table(tmp_path, tta="flips").rows == {}
    assert set(open_table(tmp_path, tta="none").rows) == {("a", "a.nii")}


def test_the_row_of_an_image_that_changed_is_gone_also_after_a_second_kill(tmp_path, images):
    table = open_table(tmp_path)
    table.add([row("a"), row("b")])
    later = time.time() + 60
    os.utime(images["b"], (later, later))
    for _ in range(2):
        assert set(open_table(tmp_path).rows) == {key("a")}
        os.utime(table.path, (later + 60, later + 60))  # as a later attempt would, which is killed in turn


def test_a_kill_while_an_earlier_attempt_is_read_keeps_its_rows(tmp_path, images, monkeypatch):
    open_table(tmp_path).add([row(name) for name in images])

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PartialTable, "_keep", kill)
        patch.setattr("voxlift.app.inference.predict.write_text", kill)
        with pytest.raises(KeyboardInterrupt):
            open_table(tmp_path)
    assert set(open_table(tmp_path).rows) == {key(name) for name in images}
