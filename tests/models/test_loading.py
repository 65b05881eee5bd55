"""Files that hold a network, and those that do not."""

import zipfile

import keras
import pytest
from keras import layers

from voxlift.models.baselines import build_baseline
from voxlift.models.loading import read_network
from voxlift.models.lifting import LiftError, load_network

# TensorFlow's variables do not know numpy 2's copy keyword yet: Keras meets that while it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _save(path):
    keras.Sequential([keras.Input((8, 9, 1)), layers.Flatten(), layers.Dense(2)], name="small").save(path)
    return path


def test_a_saved_network_comes_back_not_compiled(tmp_path):
    network = read_network(_save(tmp_path / "small.keras"))
    assert network.name == "small"
    assert not network.compiled


@pytest.mark.parametrize("left", [0, 10, 0.5])
def test_a_file_that_is_cut_off_is_not_said_to_be_missing(left, tmp_path):
    path = _save(tmp_path / "small.keras")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    message = r"small\.keras is no \.keras file, or not a whole one"
    with pytest.raises(ValueError, match=message):
        build_baseline(str(path), input_shape=(8, 9, 1), classes=2)
    with pytest.raises(LiftError, match=message):
        load_network(path)


def test_an_archive_without_a_network_cannot_be_loaded(tmp_path):
    path = tmp_path / "other.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", "{}")
    with pytest.raises(ValueError, match=r"other\.keras cannot be loaded: .* Save it with model\.save"):
        read_network(path)
