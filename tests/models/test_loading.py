"""Files with a network are loaded, and files without one are refused by name."""

import zipfile
from functools import partial

import keras
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
