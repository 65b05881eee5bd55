"""A damaged or hostile file of a run folder is named within seconds, and never a traceback."""

import time

import numpy as np
import pytest

from voxlift.app.config import DataSettings, SettingsError, TrainSettings
from voxlift.app.files import read_json, read_rows, write_text
from voxlift.app.runs.configuration import load_settings, save_settings
from voxlift.app.runs.folder import RunFolder

SECONDS = 5


def nest_aliases(count):
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, count)]
    return "\n".join(lines)


def nest_interpolations(count):
    return "\n".join(["a0: xxxxxxxxxx", *(f"a{n}: '{f'${{a{n - 1}}}' * 10}'" for n in range(1, count))])


HOSTILE = {
    "nested aliases": nest_aliases(9),
    "merged aliases": "a: &a {x: 1}\nb:\n  <<: *a\n",
    "alias of itself": "a: &a [*a]\n",
    "nested interpolations": nest_interpolations(9),
    "interpolation in a list": "data:\n  classes: ['${oc.env:HOME}']\n",
    "deep flow lists": "a: " + "[" * 3000 + "]" * 3000,
    "deep mappings": "\n".join(" " * n + "a:" for n in range(900)),
    "deep block lists": "- " * 3000 + "x",
    "many values": "a: [" + "1," * 400_000 + "]",
    "large": "a: " + "x" * 2_000_000,
    "a list": "- 1\n",
    "a text": "text",
    "not text": "\udcff\udcfe\x00",
    "a long number": "seed: " + "9" * 5000,
    "a date that is none": "seed: 2020-99-99\n",
    "python objects": "seed: !!python/object/apply:os.system ['true']\n",
    "a key twice": "seed: 1\nseed: 2\n",
    "a key that is a list": "? [a, b]\n: 1\n",
    "another key": "sed: 1\n",
    "a mapping in a list of numbers": "model:\n  filters: [4, {a: null}]\n",
}


@pytest.mark.parametrize("form", HOSTILE)
def test_a_hostile_configuration_is_named_soon(form, tmp_path):
    run = RunFolder(tmp_path)
    run.config.write_bytes(HOSTILE[form].encode(errors="surrogateescape"))
    started = time.monotonic()
    with pytest.raises(SettingsError) as caught:
        load_settings(run)
    assert time.monotonic() - started < SECONDS
    assert str(caught.value).startswith(f"{run.config}: ")
    assert len(str(caught.value)) < 1000


def test_text_that_looks_like_an_interpolation_is_read_as_it_was_saved(tmp_path):
    run = RunFolder(tmp_path)
    classes = ["${a}", r"\${b}", "a: &a", "*a", "???"]
    save_settings(TrainSettings(data=DataSettings(classes=classes)), run)
    assert load_settings(run).data.classes == classes


def test_a_configuration_with_changed_bytes_is_read_or_named(tmp_path):
    run, draw = RunFolder(tmp_path), np.random.default_rng(0)
    save_settings(TrainSettings(), run)
    whole = run.config.read_bytes()
    for _ in range(100):
        changed = bytearray(whole)
        for _ in range(draw.choice([1, 5])):
            changed[draw.integers(len(whole))] = draw.choice(list(b"\x00\xff&*:[]{}-?|>!%@`'\"\n\t 9"))
        run.config.write_bytes(changed)
        try:
            load_settings(run)
        except SettingsError as error:
            assert str(error).startswith(f"{run.config}: ")  # noqa: PT017 - some changes are harmless


@pytest.mark.parametrize("text", ["", "[1]", "1", "{", "[" * 100_000, "9" * 5000, "\x00", '{"a": {"b": 1}'])
def test_json_that_is_no_object_is_named(text, tmp_path):
    write_text(tmp_path / "metrics.json", text)
    with pytest.raises(SettingsError, match=r"metrics\.json"):
        read_json(tmp_path / "metrics.json")


def test_a_key_or_column_that_is_gone_is_named_with_its_file(tmp_path):
    write_text(tmp_path / "metrics.json", '{"test": {"auc": 1}}')
    write_text(tmp_path / "splits.csv", "subject\na\n")
    content, row = read_json(tmp_path / "metrics.json"), read_rows(tmp_path / "splits.csv")[0]
    for values, key, name in (
        (content, "val", "metrics.json"),
        (content["test"], "f1", "metrics.json"),
        (row, "split", "splits.csv"),
    ):
        with pytest.raises(SettingsError, match=rf"{name}.*{key}"):
            values[key]


@pytest.mark.parametrize("text", ["a\n" + "x" * 200_000, "a,b\n1,2,3\n"])
def test_a_table_that_is_none_is_named(text, tmp_path):
    write_text(tmp_path / "splits.csv", text)
    with pytest.raises(SettingsError, match=r"splits\.csv"):
        read_rows(tmp_path / "splits.csv")


def test_a_folder_in_place_of_a_file_and_an_endless_file_are_named(tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "endless.json").symlink_to("/dev/zero")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(2**40)
    for name in ("folder.json", "endless.json", "large.json"):
        for read in (read_json, read_rows):
            with pytest.raises(SettingsError, match=name):
                read(tmp_path / name)
