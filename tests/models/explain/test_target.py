"""The layer and the class that an explanation is about exist, or are asked for in words."""

import keras
import numpy as np
import pytest
from keras import layers

from voxlift.models.explain import grad_cam, occlusion_map


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: grad_cam(m, x, label=3), "has classes 0 to 2, received 3"),
        (
            lambda m, x: grad_cam(m, x, label=1, layer="second"),
            "no spatial layer 'second'. It has first, pool",
        ),
        (lambda m, x: occlusion_map(m, x, label=-1), "received -1"),
        (
            lambda m, x: occlusion_map(m, x, label=1, size=0),
            "Expected one positive integer or 3 of them for size",
        ),
    ],
)
def test_errors_say_what_and_how(call, message, detector, volumes):
    with pytest.raises(ValueError, match=message):
        call(detector(3), volumes)


def test_a_network_without_spatial_layers_is_refused():
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)])
    with pytest.raises(ValueError, match="Grad-CAM has nothing to show"):
        grad_cam(model, np.zeros((1, 4, 4, 1), "float32"), label=0)
