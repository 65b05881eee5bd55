"""Models whose training cannot start are refused together, before any training and before any image."""

import pytest

from commands import compose_command
from tiny import TINY, places_in
from voxlift.app.cli.train import read_settings
from voxlift.app.comparison.check import check_trainings
from voxlift.app.config import SettingsError


def settings_of(folder, *overrides):
    return read_settings(compose_command("train", *TINY, *places_in(folder), *overrides))


def test_every_model_that_cannot_be_built_is_named_and_no_image_is_prepared(tmp_path):
    deep = "model.filters=[4,4,4,4,4]"  # halves a slice more often than 12 voxels allow
    trainings = {
        "slice2d": settings_of(tmp_path, "model=slice2d"),
        "slice2d_axes": settings_of(tmp_path, "model=slice2d_axes"),
        "volume3d": settings_of(tmp_path, "model=volume3d", deep),
        "inflated": settings_of(tmp_path, "experiment=inflated", deep),
    }
    with pytest.raises(SettingsError) as caught:
        check_trainings(trainings)
    message = str(caught.value)
    assert all(name in message for name in ("slice2d_axes", "volume3d", "inflated", "model.axis"))
    assert not message.startswith("slice2d:")
    assert not (tmp_path / "cache").exists()


def test_models_that_can_be_built_pass(tmp_path):
    check_trainings(
        {"slice2d": settings_of(tmp_path, "model=slice2d"), "acs": settings_of(tmp_path, "model=acs")}
    )
