"""Finished runs are reused, and interrupted ones resumed, only where their settings are the same."""

import os
import re
import time

import pytest
from omegaconf import OmegaConf

from voxlift import __version__
from voxlift.app.config import DataSettings, ModelSettings, SettingsError, TrainSettings
from voxlift.app.config.overrides import list_changes
from voxlift.app.files import write_json
from voxlift.app.runs.configuration import (
    find_finished_run,
    has_same_settings,
    load_settings,
    refuse_other_run,
    reopen_settings,
    save_settings,
    write_extension,
)
from voxlift.app.runs.folder import RunFolder


def finished_run(folder, **changes):
    folder.mkdir(parents=True)
    run = RunFolder(folder)
    data = DataSettings(name="phantom", task="nodule", subjects=16, classes=["x", "y"])
    settings = TrainSettings(data=data, **changes)
    settings.model = ModelSettings(name="volume3d", kind="volume")
    settings.preprocess.name = settings.data.name
    save_settings(settings, run)
    write_json(run.environment, {"voxlift": __version__})
    write_json(run.metrics, {})
    return settings


def test_a_finished_run_with_the_same_settings_is_found_in_another_comparison(tmp_path):
    wanted = finished_run(tmp_path / "compare-1" / "runs" / "volume3d-seed3", seed=3)
    finished_run(tmp_path / "single", seed=4)
    wanted.data.classes = []  # the run filled them in
    wanted.run_dir = "elsewhere"
    assert find_finished_run(wanted, tmp_path).path == tmp_path / "compare-1" / "runs" / "volume3d-seed3"
    wanted.trainer.epochs += 1
    assert find_finished_run(wanted, tmp_path) is None


def test_a_run_older_than_the_table_or_of_another_version_is_not_used(tmp_path):
    wanted = finished_run(tmp_path / "single")
    assert find_finished_run(wanted, tmp_path) is not None
    table = tmp_path / "labels.csv"
    table.write_text("image,label\n")
    saved = tmp_path / "single" / "config.yaml"
    saved.write_text(saved.read_text(encoding="utf-8").replace("table: null", f"table: {table}"))
    wanted.data.table = str(table)
    assert find_finished_run(wanted, tmp_path) is not None
    os.utime(table, (time.time() + 60, time.time() + 60))
    assert find_finished_run(wanted, tmp_path) is None
    wanted.data.table = None
    write_json(tmp_path / "single" / "environment.json", {"voxlift": "0.0"})
    assert find_finished_run(wanted, tmp_path) is None


def test_a_folder_with_runs_of_other_settings_is_refused_with_what_differs(tmp_path):
    wanted = finished_run(tmp_path / "runs" / "a-seed0")
    run = RunFolder(tmp_path / "runs" / "a-seed0")
    refuse_other_run(run, wanted)
    wanted.trainer.epochs = 7
    assert list_changes(TrainSettings(), TrainSettings(seed=1)) == ["seed: 1 instead of 0"]
    with pytest.raises(SettingsError, match=r"trainer\.epochs: 7 instead of 30"):
        refuse_other_run(run, wanted)


@pytest.fixture
def older(tmp_path):
    """A finished run whose version did not know some keys yet, and the settings that it was asked for."""
    wanted = finished_run(tmp_path / "older", augment={"name": "light", "noise_prob": 0.3})
    run = RunFolder(tmp_path / "older")
    saved = OmegaConf.load(run.config)
    for group, key in (("trainer", "ema"), ("model", "freeze_epochs"), ("splits", "outer_folds")):
        del saved[group][key]
    del saved["devices"]
    OmegaConf.save(saved, run.config)
    return run, wanted


def test_keys_with_their_defaults_that_a_saved_run_lacks_are_no_difference(older, tmp_path):
    run, wanted = older
    wanted.augment |= {"mixup_alpha": 0.0, "flip_prob": [0.0, 0.0, 0.0]}  # the augmentation's own defaults
    assert list_changes(load_settings(run), wanted) == []
    refuse_other_run(run, wanted)
    assert has_same_settings(run, wanted)
    assert find_finished_run(wanted, tmp_path) == run
    assert reopen_settings(str(run.path), overrides=["resume=x"], epochs=0)[1].trainer.ema == 0.0


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda wanted: setattr(wanted.trainer, "ema", 0.9), "trainer.ema: 0.9 instead of 0.0"),
        (lambda wanted: wanted.augment.update(mixup_alpha=0.2), "augment.mixup_alpha: 0.2 instead of 0.0"),
        (lambda wanted: wanted.augment.pop("noise_prob"), "augment.noise_prob: 0.0 instead of 0.3"),
    ],
)
def test_a_key_that_a_saved_run_lacks_differs_with_another_value_than_its_default(change, difference, older):
    run, wanted = older
    change(wanted)
    assert list_changes(load_settings(run), wanted) == [difference]
    assert not has_same_settings(run, wanted)
    with pytest.raises(SettingsError, match=re.escape(difference)):
        refuse_other_run(run, wanted)


def test_columns_of_the_table_are_no_difference_to_a_network_of_images_alone():
    def training(kind, column, **keys):
        return TrainSettings(model=ModelSettings(kind=kind, columns=[column], **keys))

    assert list_changes(training("volume", "age"), training("volume", "sex")) == []
    for kind, joins in (("table", False), ("volume", True), ("slice", True)):
        pair = [training(kind, column, join_columns=joins) for column in ("age", "sex")]
        (difference,) = list_changes(*pair)
        assert difference.startswith("model.columns: ['sex'] instead of ['age']")


@pytest.mark.parametrize(("schedule", "is_equal"), [("cosine", False), ("constant", True)])
def test_a_run_resumed_for_more_epochs_is_reused_only_where_it_equals_one_training(
    tmp_path, schedule, is_equal
):
    wanted = finished_run(tmp_path / "single")
    wanted.optimizer.schedule = schedule
    run = RunFolder(tmp_path / "single")
    save_settings(wanted, run)
    assert find_finished_run(wanted, tmp_path) == run
    write_extension(run, wanted, planned=10, trained=10)
    assert (find_finished_run(wanted, tmp_path) == run) is is_equal
    if is_equal:
        refuse_other_run(run, wanted)
    else:
        with pytest.raises(SettingsError, match=r"trainer\.epochs.*10 to 30"):
            refuse_other_run(run, wanted)
