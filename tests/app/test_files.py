"""Rows and objects come back as they were written, and what is absent or broken is told."""

import pytest

from voxlift.app.config import SettingsError
from voxlift.app.files import read_json, read_rows, write_json, write_rows, write_text


def test_rows_and_json_come_back(tmp_path):
    write_rows(tmp_path / "a.csv", [{"x": 1, "y": "a,b"}, {"x": 2, "y": 'c"d'}])
    assert read_rows(tmp_path / "a.csv") == [{"x": "1", "y": "a,b"}, {"x": "2", "y": 'c"d'}]
    write_json(tmp_path / "a.json", {"test": {"auc": 0.5}})
    assert read_json(tmp_path / "a.json") == {"test": {"auc": 0.5}}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json"]


def test_missing_and_broken_files_are_told(tmp_path):
    with pytest.raises(SettingsError, match="does not exist"):
        read_rows(tmp_path / "a.csv")
    with pytest.raises(SettingsError, match="does not exist"):
        read_json(tmp_path / "a.json")
    write_text(tmp_path / "a.json", "{")
    with pytest.raises(SettingsError, match="expected JSON"):
        read_json(tmp_path / "a.json")
