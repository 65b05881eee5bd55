"""Errors of Hydra and of files are described with the key or file, the received value and how to write it."""

import errno
import os

import pytest
from hydra.errors import HydraException

from commands import compose_command
from voxlift.app.config import SettingsError
from voxlift.app.config.messages import describe_error, is_user_error
from voxlift.app.errors import UserError


def refusal(command, *overrides):
    with pytest.raises(HydraException) as caught:
        compose_command(command, *overrides)
    return describe_error(caught.value, command=command)


def test_a_value_of_the_wrong_type_is_refused_with_its_key_and_value():
    for command, override, expected in [
        ("train", "trainer.epochs=abc", "whole number"),
        ("train", "optimizer.learning_rate=fast", "number"),
        ("train", "debug=maybe", "true or false"),
        ("train", "trainer.epochs=null", "value"),
        ("train", "model.filters=[a,b]", "whole number"),
        ("train", "trainer=5", "group"),
        ("train", "optimizer.options=3", "group"),
        ("compare", "seeds=1", "'seeds=[1]'"),
    ]:
        key, _, value = override.partition("=")
        message = refusal(command, override)
        assert message.startswith(f"{key}: expected"), override
        assert f"received {value}." in message
        assert expected in message


def test_an_argument_that_is_no_setting_is_refused_with_how_to_write_it(monkeypatch):
    for words, command, written in [
        (["data.image_column=File", "Name"], "audit", "'data.image_column=File Name'"),
        (["preprocess.shape=[16,", "24,", "24]"], "train", "'preprocess.shape=[16,24,24]'"),
        (["model.columns=[Age (y),Sex]"], "compare", """'model.columns=["Age (y)",Sex]'"""),
        (["data.label_column=Age (y)"], "train", """'data.label_column="Age (y)"'"""),
        (["."], "evaluate", "run=."),
        (["data.table"], "audit", "--help"),
        (["data.classes=[a,", "seed=1"], "train", "'data.classes=[a]'"),
    ]:
        monkeypatch.setattr("sys.argv", ["voxlift", *words])
        assert written in refusal(command, *words)
    assert compose_command("train", 'model.columns=["Age (y)",Sex]').model.columns == ["Age (y)", "Sex"]


def test_several_values_are_a_list_or_a_sweep():
    message = refusal("train", "splits.fold=0,1")
    assert "'splits.fold=[0,1]'" in message
    assert "-m splits.fold=0,1" in message


def test_an_unusable_file_is_named_with_the_reason():
    messages = {
        number: describe_error(OSError(number, os.strerror(number), "runs/x"))
        for number in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
    }
    assert all(message.startswith("runs/x: ") for message in messages.values())
    assert len(set(messages.values())) == 5  # no permission has two numbers
    assert os.strerror(errno.EIO) in messages[errno.EIO]


def test_only_errors_that_the_user_can_fix_count_as_user_errors():
    from voxlift.app.inference.scores import DivergedError
    from voxlift.data_pipelines.errors import DataError
    from voxlift.data_pipelines.tables.manifest import ManifestError
    from voxlift.models.lifting import LiftError

    fixable = (SettingsError("x"), UserError("x"), DivergedError("x"), DataError("x"), ManifestError("x"))
    assert all(map(is_user_error, (*fixable, LiftError("net", []), FileNotFoundError(2, "none", "a.nii"))))
    assert not any(map(is_user_error, (ValueError("x"), KeyError("x"))))
