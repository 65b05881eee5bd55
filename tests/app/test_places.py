"""A place where nothing can be made is told before the work whose results shall go there."""

import pytest

from voxlift.app.errors import SettingsError
from voxlift.app.files import output_file_problems, output_folder_problems, place_problems, refuse_unwritable


def test_a_new_place_is_taken_whatever_folders_it_needs(tmp_path):
    assert place_problems(tmp_path / "a" / "b" / "c.csv", asked="output=c.csv") == []


def test_a_file_in_the_way_and_a_closed_folder_are_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"run_dir=x: .*file is a file, so nothing can be made below it"):
        refuse_unwritable(tmp_path / "file" / "run", asked="run_dir=x")
    monkeypatch.setattr("os.access", lambda path, _mode: path != tmp_path)
    for problems in (
        output_file_problems(str(tmp_path / "x.csv"), ending=".csv", overwrite=False),
        output_folder_problems(str(tmp_path / "new" / "export")),
    ):
        assert len(problems) == 1
        assert f"{tmp_path} may not be written to by you" in problems[0]
