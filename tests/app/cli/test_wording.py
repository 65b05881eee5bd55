"""Values of the wrong kind are told in the user's words, with the key and what it expects."""

import errno
import os

import pytest
from hydra.errors import HydraException

from commands import compose_command
from voxlift.app.config.messages import explain


@pytest.mark.parametrize(
    ("command", "override", "told"),
    [
        ("train", "trainer.epochs=abc", "trainer.epochs: expected a whole number; received abc."),
        (
            "train",
            "optimizer.learning_rate=fast",
            "optimizer.learning_rate: expected a number; received fast.",
        ),
        ("train", "debug=maybe", "debug: expected true or false; received maybe."),
        ("train", "trainer.epochs=null", "trainer.epochs: expected a value; received null."),
        ("train", "model.filters=[a,b]", "model.filters: expected a whole number; received [a,b]."),
        ("train", "trainer=5", "trainer: expected a group of keys, each set by itself; received 5."),
        (
            "train",
            "optimizer.options=3",
            "optimizer.options: expected a group of keys, each set by itself; received 3.",
        ),
        ("compare", "seeds=1", "seeds: expected a list; received 1. Write 'seeds=[1]'."),
    ],
)
def test_a_value_of_another_kind_is_told_with_what_is_expected(command, override, told):
    with pytest.raises(HydraException) as found:
        compose_command(command, override)
    assert explain(found.value, command=command) == told


@pytest.mark.parametrize(
    ("words", "command", "told"),
    [
        (["data.image_column=File", "Name"], "audit", "write 'data.image_column=File Name'"),
        (["preprocess.shape=[16,", "24,", "24]"], "train", "Write 'preprocess.shape=[16,24,24]'"),
        (["model.columns=[Age (y),Sex]"], "compare", """Write it as 'model.columns=["Age (y)",Sex]'"""),
        (["data.label_column=Age (y)"], "train", """Write it as 'data.label_column="Age (y)"'"""),
        (["."], "evaluate", "Write run=."),
        (["data.table"], "audit", "See --help"),
        (["data.classes=[a,", "seed=1"], "train", "does not end. Write 'data.classes=[a]'"),
    ],
)
def test_a_word_that_is_no_setting_is_told_with_how_to_write_it(monkeypatch, words, command, told):
    monkeypatch.setattr("sys.argv", ["voxlift", *words])
    with pytest.raises(HydraException) as found:
        compose_command(command, *words)
    assert told in explain(found.value, command=command)


def test_a_list_written_as_told_is_taken():
    settings = compose_command("train", 'model.columns=["Age (y)",Sex]')
    assert settings.model.columns == ["Age (y)", "Sex"]


def test_several_values_are_a_list_or_a_sweep():
    with pytest.raises(HydraException) as found:
        compose_command("train", "splits.fold=0,1")
    told = explain(found.value, command="train")
    assert "'splits.fold=[0,1]'" in told
    assert "-m splits.fold=0,1" in told


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOTDIR, "a file stands where a folder is expected"),
        (errno.EACCES, "may not be read or written"),
        (errno.EPERM, "choose another place"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_what_befalls_a_file_names_it_and_what_helps(number, told):
    said = explain(OSError(number, os.strerror(number), "runs/x"))
    assert said.startswith("runs/x: ")
    assert told in said
