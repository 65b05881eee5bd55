"""Rows and objects come back as they were written; a path that cannot be read or made is refused early."""

import json

import pytest

from voxlift.app.errors import SettingsError
from voxlift.app.files import (
    find_description_problems,
    find_output_file_problems,
    find_output_folder_problems,
    find_path_problems,
    read_json,
    read_rows,
    refuse_unwritable,
    write_json,
    write_rows,
    write_text,
)


def test_rows_and_json_come_back(tmp_path):
    write_rows(tmp_path / "a.csv", [{"x": 1, "y": "a,b"}, {"x": 2, "y": 'c"d'}])
    assert read_rows(tmp_path / "a.csv") == [{"x": "1", "y": "a,b"}, {"x": "2", "y": 'c"d'}]
    write_json(tmp_path / "a.json", {"test": {"auc": 0.5}})
    assert read_json(tmp_path / "a.json") == {"test": {"auc": 0.5}}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json"]


def test_a_missing_or_broken_file_is_named(tmp_path):
    write_text(tmp_path / "broken.json", "{")
    for read, name in ((read_rows, "a.csv"), (read_json, "a.json"), (read_json, "broken.json")):
        with pytest.raises(SettingsError, match=f"^{tmp_path / name}: "):
            read(tmp_path / name)


def test_a_new_path_is_accepted_whatever_folders_it_needs(tmp_path):
    assert find_path_problems(tmp_path / "a" / "b" / "c.csv", setting="output=c.csv") == []


def test_a_file_in_the_way_and_a_read_only_folder_are_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=rf"^run_dir=x: .*{tmp_path / 'file'}"):
        refuse_unwritable(tmp_path / "file" / "run", setting="run_dir=x")
    monkeypatch.setattr("os.access", lambda path, _mode: path != tmp_path)
    for problems in (
        find_output_file_problems(str(tmp_path / "x.csv"), ending=".csv", overwrite=False),
        find_output_folder_problems(str(tmp_path / "new" / "export")),
    ):
        (problem,) = problems
        assert f"{tmp_path}." in problem


DESCRIPTION = json.dumps({"runs": [], "input": "scans"})


def test_a_json_file_that_is_not_the_description_of_the_same_table_is_not_replaced(tmp_path):
    cases = (  # content of x.json, other files, the output, and whether it is refused
        ('{"age": {"Description": "mine"}}', [], "x.csv", True),
        ("not JSON", [], "x.csv", True),
        ("[1]", [], "x.npz", True),
        (DESCRIPTION, ["x.npz"], "x.csv", True),
        (DESCRIPTION, ["x.csv"], "x.npz", True),
        (DESCRIPTION, ["x.csv"], "x.CSV", True),
        (DESCRIPTION, [], "x.csv", False),
        (DESCRIPTION, ["x.csv"], "x.csv", False),
        (None, ["x.npz"], "x.csv", False),
        (None, [], "x.npz", False),
    )
    for number, (content, others, output, is_refused) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in others:
            (folder / name).touch()
        if content is not None:
            (folder / "x.json").write_text(content)
        problems = find_description_problems(str(folder / output))
        assert bool(problems) == is_refused, (content, others, output)
        assert all(str(folder / "x.json") in problem for problem in problems)
    (tmp_path / "link.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.json").mkdir()
    assert find_description_problems(str(tmp_path / "link.csv"))
    assert find_description_problems(str(tmp_path / "folder.csv"))
