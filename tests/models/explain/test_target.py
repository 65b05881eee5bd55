"""A map of a class, layer or size that does not exist is refused."""

import keras
import numpy as np
import pytest
from keras import layers

from voxlift.models.explain import grad_cam, occlusion_map


@pytest.mark.parametrize(
    ("make_map", "settings", "named"),
    [
        (grad_cam, {"label": 3}, "0 to 2.*3"),
        (grad_cam, {"label": 1, "layer": "second"}, "'second'.*first, pool"),
        (occlusion_map, {"label": -1}, "0 to 2.*-1"),
        (occlusion_map, {"label": 1, "size": 0}, "size.*0"),
        (occlusion_map, {"label": 1, "stride": (1, 2)}, r"3 .*stride.*\(1, 2\)"),
    ],
)
def test_wrong_targets_and_sizes_are_refused_by_name(make_map, settings, named, detector, volumes):
    with pytest.raises(ValueError, match=named):
        make_map(detector(3), volumes, **settings)


def test_a_network_without_spatial_layers_is_refused():
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)], name="flat")
    with pytest.raises(ValueError, match=r"flat .*spatial"):
        grad_cam(model, np.zeros((1, 4, 4, 1), "float32"), label=0)
