"""The convolution of few channels equals the layer of Keras, however many axes of taps are stacked."""

import keras
import numpy as np
import pytest
from keras import ops

from arrays import draw
from voxlift.models import backend
from voxlift.models.baselines import build_baseline
from voxlift.models.layers import FewChannelsConv3D, few_channels
from voxlift.models.lifting import to_3d

SHAPES = [  # input, kernel, strides; the axes stacked of the last ones are width and height, and width
    ((2, 5, 7, 6, 1), 3, 1),
    ((2, 4, 9, 5, 2), 3, (1, 2, 3)),
    ((1, 9, 8, 7, 1), 7, 2),
    ((2, 6, 5, 8, 4), (3, 5, 4), (2, 1, 2)),
    ((1, 6, 5, 8, 3), (2, 3, 5), 1),
    ((2, 3, 6, 5, 1), (1, 3, 3), 1),
]


@pytest.fixture(name="stacked")
def stacked_fixture(monkeypatch):
    """Stack taps on this device."""
    monkeypatch.setattr(few_channels, "prefers_stacked_taps", lambda: True)


@pytest.mark.usefixtures("stacked")
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("most", [64, 20, 8])  # three, two, one axis
@pytest.mark.parametrize("case", SHAPES)
def test_outputs_and_kernel_gradients_equal_keras(case, padding, most, monkeypatch):
    shape, kernel, strides = case
    monkeypatch.setattr(few_channels, "MOST_STACKED", most)
    if padding == "valid":
        shape = (shape[0], *[size + 7 for size in shape[1:4]], shape[4])  # at least one output
    settings = {"strides": strides, "padding": padding, "activation": "tanh"}
    plain, ours = (kind(3, kernel, **settings) for kind in (keras.layers.Conv3D, FewChannelsConv3D))
    for layer in (plain, ours):
        layer.build(shape)
    ours.set_weights(plain.get_weights())
    voxels = draw(shape, 1)

    def loss_of(layer):
        def loss(weights, inputs):
            outputs, _ = layer.stateless_call([weights, layer.bias.value], [], inputs)
            return ops.sum(ops.square(outputs - 0.5))

        return backend.value_and_gradients(loss, layer.kernel.value, voxels)

    np.testing.assert_allclose(ours(voxels), plain(voxels), rtol=2e-5, atol=2e-5)
    for mine, theirs in zip(loss_of(ours)[1], loss_of(plain)[1], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4 * float(ops.max(ops.abs(theirs))))


@pytest.mark.usefixtures("stacked")
@pytest.mark.parametrize("settings", [{"dilation_rate": 2}, {"groups": 2}])
def test_other_settings_use_the_keras_path(settings):
    plain, ours = (
        kind(4, 2, padding="same", **settings) for kind in (keras.layers.Conv3D, FewChannelsConv3D)
    )
    voxels = draw((2, 5, 4, 6, 2), 3)
    plain.build(voxels.shape)
    ours.build(voxels.shape)
    ours.set_weights(plain.get_weights())
    np.testing.assert_array_equal(ours(voxels), plain(voxels))


@pytest.mark.usefixtures("stacked")
def test_a_lifted_network_uses_it_for_its_first_convolution_only():
    flat = build_baseline("cnn", input_shape=(9, 7, 1), classes=2, filters=(3, 8, 5))
    lifted = to_3d(flat, depth=5, depth_policy="isotropic")
    first, *others = (layer for layer in lifted.layers if isinstance(layer, keras.layers.Conv3D))
    assert isinstance(first, FewChannelsConv3D)
    assert not any(isinstance(layer, FewChannelsConv3D) for layer in others)


def test_no_network_for_tensorflow_contains_it():
    flat = build_baseline("cnn", input_shape=(9, 7, 1), classes=2, filters=(3, 8, 5))
    lifted = to_3d(flat, depth=5, depth_policy="isotropic")
    assert not any(isinstance(layer, FewChannelsConv3D) for layer in lifted.layers)
