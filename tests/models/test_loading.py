"""Files with a network are loaded, and files without one are refused by name."""

import importlib
import zipfile
from functools import partial
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from keras import layers

from voxlift.models.baselines import build_baseline
from voxlift.models.lifting import LiftError, load_network
from voxlift.models.loading import read_network

# TensorFlow's variables do not accept numpy 2's copy keyword, which Keras passes when it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _save(path):
    keras.Sequential([keras.Input((8, 9, 1)), layers.Flatten(), layers.Dense(2)], name="small").save(path)
    return path


def test_a_saved_network_is_loaded_without_its_compilation(tmp_path):
    network = read_network(_save(tmp_path / "small.keras"))
    assert network.name == "small"
    assert not network.compiled


def test_layers_that_nothing_registered_are_named(tmp_path):
    class Twice(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    names = keras.saving.get_custom_objects()
    keras.saving.register_keras_serializable("elsewhere")(Twice)
    keras.Sequential([keras.Input((3,)), Twice()]).save(tmp_path / "own.keras")
    del names["elsewhere>Twice"]
    with pytest.raises(ValueError, match="elsewhere>Twice"):
        read_network(tmp_path / "own.keras")


def test_the_library_of_a_networks_layers_is_imported_or_named(tmp_path, monkeypatch):
    kimm = pytest.importorskip("kimm")
    file = tmp_path / "scaled.keras"
    keras.Sequential([keras.Input((8, 9, 1)), kimm.layers.LayerScale(1), layers.Flatten()]).save(file)
    imported = []
    monkeypatch.setattr(importlib, "import_module", imported.append)
    assert read_network(file).output_shape == (None, 72)
    assert imported == ["kimm.models"]
    monkeypatch.setattr(importlib, "import_module", Mock(side_effect=ImportError))
    with pytest.raises(ValueError, match=r"scaled\.keras.*kimm"):
        read_network(file)
    assert read_network(_save(tmp_path / "small.keras")).name == "small"


@pytest.mark.parametrize("left", [0, 10, 0.5])
def test_an_incomplete_file_is_not_reported_as_missing(left, tmp_path):
    path = _save(tmp_path / "small.keras")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    calls = (
        partial(build_baseline, str(path), input_shape=(8, 9, 1), classes=2),
        partial(load_network, path),
    )
    for call in calls:
        with pytest.raises((ValueError, LiftError), match=r"small\.keras") as caught:
            call()
        assert "exist" not in str(caught.value)


def test_an_archive_without_a_network_cannot_be_loaded(tmp_path):
    path = tmp_path / "other.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", "{}")
    with pytest.raises(ValueError, match=r"other\.keras.*model\.save"):
        read_network(path)


def test_a_damaged_file_is_named_at_every_byte(tmp_path):
    whole = _save(tmp_path / "small.keras").read_bytes()
    path = tmp_path / "damaged.keras"
    refused = 0
    for position in np.linspace(0, len(whole) - 1, 60, dtype=int):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            read_network(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017 - a byte of a time stamp may be harmless
            refused += 1
    assert refused > 40


def test_a_file_with_other_content_under_right_checksums_is_named(tmp_path):
    saved = _save(tmp_path / "small.keras")
    with zipfile.ZipFile(saved) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config, weights = members["config.json"], members["model.weights.h5"]
    deep = b"[" * 100_000 + b"]" * 100_000
    contents = (
        {"config.json": b"[]"},
        {"config.json": b"\xff"},
        {"config.json": deep},
        {"config.json": config.replace(b"Dense", b"Nothing")},
        {"model.weights.h5": b""},
        {"model.weights.h5": weights[: len(weights) // 2]},
        {"model.weights.h5": bytes(len(weights))},
    )
    path = tmp_path / "other.keras"
    for changes in contents:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**members, **changes}.items():
                archive.writestr(name, content)
        with pytest.raises(ValueError, match=r"other\.keras"):
            read_network(path)


def test_a_file_that_unpacks_to_far_more_than_its_size_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("voxlift.models.archive.READABLE_BYTES", 2**16)
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(2**20))
    with pytest.raises(ValueError, match=r"bomb\.keras.*100 times"):
        read_network(path)
