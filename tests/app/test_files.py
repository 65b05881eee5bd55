"""Rows and objects come back as they were written; a missing or broken file is named."""

import pytest

from voxlift.app.errors import SettingsError
from voxlift.app.files import read_json, read_rows, write_json, write_rows, write_text


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
