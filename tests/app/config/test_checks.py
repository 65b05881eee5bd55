"""Wrong values are refused with the key; files that the chosen data would not read are refused."""

import pytest

from voxlift.app.config import DataSettings, SettingsError, TrainSettings, check_settings
from voxlift.app.config.checks import find_data_problems


def test_a_file_that_the_data_set_does_not_read_is_refused():
    needed = {"phantom": ("task", "nodule"), "manifest": ("table", "a.csv"), "medmnist3d": ("npz", "x.npz")}
    for name, key, reader in [
        ("phantom", "table", "manifest"),
        ("phantom", "root", "manifest"),
        ("medmnist3d", "table", "manifest"),
        ("manifest", "npz", "medmnist3d"),
    ]:
        own, value = needed[name]
        settings = DataSettings(**{"name": name, own: value})
        assert find_data_problems(settings) == []
        setattr(settings, key, "mine")
        (problem,) = find_data_problems(settings)
        assert f"data.{key}=mine" in problem
        assert f"data={reader}" in problem


def test_all_problems_are_reported_at_once_each_with_its_key():
    settings = TrainSettings(data=DataSettings(name="phantom", task="nodule"), precision="half")
    settings.preprocess.shape = [8, 8]
    settings.model.kind = "volume"
    settings.model.depth_kernel = 0
    settings.trainer.epochs = 0
    settings.devices.logical_cpus = 2
    with pytest.raises(SettingsError) as caught:
        check_settings(settings)
    keys = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert keys == [
        "preprocess.shape",
        "model.depth_kernel",
        "precision",
        "trainer.epochs",
        "devices.logical_cpus",
    ]
