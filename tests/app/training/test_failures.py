"""Lack of memory, a full disk and interrupts end in a message with the fix, and leave what was finished."""

import errno
import os
import shlex
from pathlib import Path

import pytest

from voxlift.app.config import (
    DataSettings,
    ModelSettings,
    PreprocessSettings,
    SettingsError,
    TrainerSettings,
    TrainSettings,
)
from voxlift.app.errors import UserError
from voxlift.app.files import write_beside, write_json
from voxlift.app.runs.configuration import (
    is_complete,
    load_settings,
    reopen_run,
    reopen_settings,
    save_settings,
)
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.failures import (
    build_resume_hint,
    build_scoring_hint,
    build_training_hint,
    translate_failures,
)


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (MemoryError(), "Out of memory"),
        (
            ResourceExhaustedError("OOM when allocating tensor with shape[8,96]"),
            "trainer.batch_size=4 trainer.accumulate=2",
        ),
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory"), "Out of memory"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.npz"), r"No space left on device \(x\.npz\)"),
        (ResourceExhaustedError("a/events; No space left on device"), "No space left on device"),
    ],
)
def test_what_ran_out_is_reported_with_the_way_on(error, named, tmp_path):
    with (
        pytest.raises(UserError, match=rf"{named}.*voxlift-train resume={tmp_path}"),
        translate_failures(build_training_hint(TrainerSettings(batch_size=8)), build_resume_hint(tmp_path)),
    ):
        raise error


@pytest.mark.parametrize(
    ("at_once", "way_out"), [(8, "batch_size=4 needs less"), (1, "CUDA_VISIBLE_DEVICES")]
)
def test_scoring_that_needs_too_much_is_reported_with_its_own_key(at_once, way_out):
    with (
        pytest.raises(UserError, match=rf"Out of memory with batch_size={at_once}\. .*{way_out}.*\.$"),
        translate_failures(build_scoring_hint(at_once)),
    ):
        raise ResourceExhaustedError("OOM when allocating tensor with shape[8,96]")


def test_a_mistake_of_ours_stays_one():
    with pytest.raises(ZeroDivisionError), translate_failures(build_scoring_hint(8)):
        raise ZeroDivisionError


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_device_that_is_really_full_is_named(tmp_path):
    path = tmp_path / "a.npz"
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*a\.npz'"),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        write_beside(path, lambda _: full.write(b"x"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def run(tmp_path):
    settings = TrainSettings(
        data=DataSettings(name="phantom", task="nodule"),
        preprocess=PreprocessSettings(name="ct"),
        model=ModelSettings(name="volume3d", kind="volume"),
        trainer=TrainerSettings(epochs=5),
    )
    save_settings(settings, RunFolder(tmp_path))
    return RunFolder(tmp_path)


def reopen(run, *overrides, epochs=30):
    return reopen_settings(str(run.path), overrides=[f"resume={run.path}", *overrides], epochs=epochs)[1]


def test_a_resumed_run_takes_its_own_settings_and_more_epochs_at_most(run):
    assert reopen(run).trainer.epochs == 5
    assert reopen(run, "trainer.epochs=9", epochs=9).trainer.epochs == 9
    with pytest.raises(SettingsError, match=r"trainer\.epochs=4.* 5 "):
        reopen(run, "trainer.epochs=4", epochs=4)
    with pytest.raises(SettingsError, match=r"optimizer\.learning_rate, model"):
        reopen(run, "optimizer.learning_rate=1", "model=slice2d")


def test_a_folder_in_which_no_training_began_is_reported(tmp_path):
    with pytest.raises(SettingsError, match=r"config\.yaml"):
        reopen(RunFolder(tmp_path))


def test_more_epochs_reopen_a_finished_run_and_keep_its_old_metrics(run):
    write_json(run.metrics, {"test": {"auc": 0.5}})
    assert is_complete(run, reopen(run))
    longer = reopen(run, "trainer.epochs=6", epochs=6)
    assert not is_complete(run, longer)
    reopen_run(run, longer)
    assert not run.is_finished
    assert (run.path / "metrics.before.json").exists()
    assert load_settings(run).trainer.epochs == 6


def test_the_hint_to_resume_names_the_users_modules():
    assert build_resume_hint(Path("runs/a")).endswith("voxlift-train resume=runs/a")
    words = shlex.split(build_resume_hint(Path("runs/a"), ["mynets", "more"]))
    assert words[-2:] == ["resume=runs/a", "custom=[mynets,more]"]
