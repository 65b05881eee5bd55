"""A path where nothing can be made is refused before the work whose results go there."""

import pytest

from voxlift.app.errors import SettingsError
from voxlift.app.files import (
    find_output_file_problems,
    find_output_folder_problems,
    find_path_problems,
    refuse_unwritable,
)


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
