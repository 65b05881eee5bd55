"""Settings that would let another data set be read than the user named are refused."""

import pytest

from voxlift.app.config import DataSettings
from voxlift.app.config.checks import data_problems


@pytest.mark.parametrize(
    ("name", "key", "reader"),
    [
        ("phantom", "table", "manifest"),
        ("phantom", "root", "manifest"),
        ("medmnist3d", "table", "manifest"),
        ("manifest", "npz", "medmnist3d"),
    ],
)
def test_a_file_that_the_data_set_does_not_read_is_refused(name, key, reader):
    needed = {"task": "nodule", "table": "labels.csv", "npz": "x.npz"}
    own = {"phantom": "task", "manifest": "table", "medmnist3d": "npz"}[name]
    plain = DataSettings(**{"name": name, own: needed[own]})
    assert data_problems(plain) == []
    setattr(plain, key, "mine")
    assert data_problems(plain) == [f"data.{key}=mine: data={name} does not read it; add data={reader}."]
