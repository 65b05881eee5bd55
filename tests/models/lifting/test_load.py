"""A 2D network is found by name or path, or the reason is reported."""

import keras
import pytest
from keras import layers

from lifts import image_network
from voxlift.models.lifting import LiftError, load_network


# TensorFlow's variables do not know numpy 2's copy keyword yet: Keras meets that while it saves.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_network_is_found_by_its_path(tmp_path):
    image_network(layers.Conv2D(2, 3)).save(tmp_path / "network.keras")
    assert isinstance(load_network(tmp_path / "network.keras"), keras.Model)


def test_a_network_that_is_not_found_is_reported_with_the_name_or_file(tmp_path):
    for arguments, word in (
        ({"name_or_path": "Resnet50"}, "ResNet50"),
        ({"name_or_path": tmp_path / "missing.keras"}, "missing.keras"),
        ({"name_or_path": "VGG16", "weights": tmp_path / "missing.h5"}, "missing.h5"),
    ):
        with pytest.raises(LiftError, match=word):
            load_network(**arguments)
