"""A planted signal is found where it was planted."""

import keras
import numpy as np
import pytest
from keras import layers

from models.aggregation import wrap_slices
from models.explain import grad_cam, occlusion_map

SIDES = (8, 12, 16)  # depth, height, width
SPOT = (slice(4, 6), slice(2, 5), slice(9, 13))


def volumes():
    voxels = np.random.default_rng(0).normal(scale=0.01, size=(2, *SIDES, 1)).astype("float32")
    voxels[(0, *SPOT)] += 1.0
    return voxels


def detector(rank, classes=3):
    """A network whose class 1 speaks for brightness, and class 0 against it."""
    convolution, pool, average = (
        getattr(layers, f"{kind}{rank}D") for kind in ("Conv", "MaxPooling", "GlobalAveragePooling")
    )
    model = keras.Sequential(
        [
            keras.Input((*SIDES[3 - rank :], 1)),
            convolution(2, 3, padding="same", activation="relu", use_bias=False, name="first"),
            pool(2, name="pool"),
            average(),
            layers.Dense(classes, use_bias=False),
        ]
    )
    model.set_weights([np.full(model.weights[0].shape, 0.1), np.array([[-1.0, 1.0, 0.0]] * 2)])
    return model


def share_inside(found, spot, margin=2):
    wide = tuple(slice(max(part.start - margin, 0), part.stop + margin) for part in spot)
    return found[wide].sum() / found.sum()


@pytest.mark.parametrize("layer", [None, "first"])
def test_grad_cam_finds_the_spot_in_a_volume(layer):
    found = grad_cam(detector(3), volumes(), label=1, layer=layer)
    assert found.shape == (2, *SIDES)
    assert found.dtype == np.float32
    assert found.min() >= 0.0
    assert share_inside(found[0], SPOT) > 0.9
    peak = np.unravel_index(found[0].argmax(), SIDES)
    assert all(part.start <= at < part.stop for part, at in zip(SPOT, peak, strict=True))
    assert found[1].max() < 0.1 * found[0].max()


def test_grad_cam_is_the_same_where_the_one_output_is_in_a_list_as_in_loaded_networks():
    network = detector(3)
    listed = keras.Model(network.inputs, network.outputs)
    maps = [grad_cam(one, volumes(), label=1) for one in (network, listed)]
    np.testing.assert_allclose(*maps, rtol=1e-5)


def test_grad_cam_finds_the_spot_in_a_slice_and_nothing_for_the_class_against_it():
    images = volumes()[:, 5]
    assert share_inside(grad_cam(detector(2), images, label=1)[0], SPOT[1:]) > 0.9
    assert grad_cam(detector(2), images, label=0).max() == 0.0


def test_grad_cam_equals_the_formula():
    # The average and the dense layer are linear: each pooled voxel's gradient is weight / number of voxels.
    model = detector(2)
    images = volumes()[:, 5]
    features = np.asarray(keras.Model(model.inputs[0], model.get_layer("first").output)(images))
    found = grad_cam(model, images, label=1, layer="first")
    # Each maximum of the four voxels passes the gradient on, so a quarter of the voxels hold it.
    np.testing.assert_allclose(found, features.sum(-1) / (48 * 4), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("aggregate", ["mean", "attention"])
def test_slice_model_gives_one_map_per_slice(aggregate):
    network = detector(2)
    found = grad_cam(wrap_slices(network, depth=8, aggregate=aggregate), volumes(), label=1)
    assert found.shape == (2, *SIDES)
    for depth in (0, 5):
        expected = grad_cam(network, volumes()[:, depth], label=1)
        np.testing.assert_allclose(found[:, depth], expected, rtol=1e-4, atol=1e-8)


def test_slices_that_the_model_leaves_out_stay_zero():
    found = grad_cam(wrap_slices(detector(2), depth=8, slices="central"), volumes(), label=1)
    assert found[:, [0, 1, 6, 7]].max() == 0.0
    assert found[0, 4:6].max() > 0.0


def test_occlusion_agrees_with_grad_cam_on_the_spot():
    found = occlusion_map(detector(3), volumes(), label=1, size=(2, 4, 4), stride=2)
    assert found.shape == (2, *SIDES)
    peak = np.unravel_index(found[0].argmax(), SIDES)
    assert all(part.start <= at < part.stop for part, at in zip(SPOT, peak, strict=True))
    assert found[0, 0, 10:, :4].max() < 0.05 * found[0].max()


def test_occlusion_works_on_slices_and_on_the_slice_model():
    images = volumes()[:, 5]
    found = occlusion_map(detector(2), images, label=1, size=4, fill=0.0)[0]
    peak = np.unravel_index(found.argmax(), SIDES[1:])
    assert all(part.start <= at < part.stop for part, at in zip(SPOT[1:], peak, strict=True))
    stacked = occlusion_map(wrap_slices(detector(2), depth=8), volumes(), label=1, size=4)
    assert stacked.shape == (2, *SIDES)
    assert stacked[0, 5].max() > 0.0


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
def test_errors_say_what_and_how(call, message):
    with pytest.raises(ValueError, match=message):
        call(detector(3), volumes())


def test_a_network_without_spatial_layers_is_refused():
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)])
    with pytest.raises(ValueError, match="Grad-CAM has nothing to show"):
        grad_cam(model, np.zeros((1, 4, 4, 1), "float32"), label=0)
