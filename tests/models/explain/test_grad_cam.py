"""A planted signal is found where it was planted."""

import keras
import numpy as np
import pytest

from voxlift.models.explain import grad_cam
from voxlift.models.features import build_feature_extractor
from voxlift.models.slice_model import pool_slices, wrap_slices


def share_inside(found, spot, margin=2):
    wide = tuple(slice(max(part.start - margin, 0), part.stop + margin) for part in spot)
    return found[wide].sum() / found.sum()


@pytest.mark.parametrize("layer", [None, "first"])
def test_grad_cam_finds_the_spot_in_a_volume(layer, detector, volumes, spot):
    found = grad_cam(detector(3), volumes, label=1, layer=layer)
    assert found.shape == (2, 8, 12, 16)
    assert found.dtype == np.float32
    assert found.min() >= 0.0
    assert share_inside(found[0], spot) > 0.9
    peak = np.unravel_index(found[0].argmax(), (8, 12, 16))
    assert all(part.start <= at < part.stop for part, at in zip(spot, peak, strict=True))
    assert found[1].max() < 0.1 * found[0].max()


def test_grad_cam_is_the_same_for_a_network_with_its_output_in_a_list(detector, volumes):
    network = detector(3)
    listed = keras.Model(network.inputs, network.outputs)
    maps = [grad_cam(one, volumes, label=1) for one in (network, listed)]
    np.testing.assert_allclose(*maps, rtol=1e-5)


def test_grad_cam_finds_the_spot_in_a_slice_and_nothing_for_the_class_against_it(detector, volumes, spot):
    images = volumes[:, 5]
    assert share_inside(grad_cam(detector(2), images, label=1)[0], spot[1:]) > 0.9
    assert grad_cam(detector(2), images, label=0).max() == 0.0


def test_grad_cam_equals_the_formula(detector, volumes):
    # The average and the dense layer are linear: each pooled voxel's gradient is weight / number of voxels.
    model = detector(2)
    images = volumes[:, 5]
    features = np.asarray(keras.Model(model.inputs[0], model.get_layer("first").output)(images))
    found = grad_cam(model, images, label=1, layer="first")
    # Max-pooling passes each gradient to one voxel of four.
    np.testing.assert_allclose(found, features.sum(-1) / (48 * 4), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("aggregate", ["mean", "attention"])
def test_slice_model_gives_one_map_per_slice(aggregate, detector, volumes):
    network = detector(2)
    found = grad_cam(wrap_slices(network, depth=8, aggregate=aggregate), volumes, label=1)
    assert found.shape == (2, 8, 12, 16)
    for depth in (0, 5):
        expected = grad_cam(network, volumes[:, depth], label=1)
        np.testing.assert_allclose(found[:, depth], expected, rtol=1e-4, atol=1e-8)


def test_slices_that_the_model_does_not_score_are_zero(detector, volumes):
    found = grad_cam(wrap_slices(detector(2), depth=8, slices="central"), volumes, label=1)
    assert found[:, [0, 1, 6, 7]].max() == 0.0
    assert found[0, 4:6].max() > 0.0


@pytest.mark.parametrize("axes", [["depth"], ["width"], ["depth", "height", "width"]])
def test_a_model_of_pooled_features_explains_the_score_of_the_volume(axes):
    keras.utils.set_random_seed(0)
    images = keras.Input((6, 6, 1))
    extractor = build_feature_extractor(
        keras.Model(images, keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="map")(images))
    )
    axis = "all" if len(axes) > 1 else axes[0]
    model = pool_slices(extractor, input_shape=(6, 6, 6, 1), classes=2, axis=axis)
    volumes = np.random.default_rng(0).normal(size=(1, 6, 6, 6, 1)).astype("float32")
    found = grad_cam(model, volumes, label=1)

    show = keras.Model(images, extractor.get_layer("map").output)
    tail = keras.Model([model.get_layer(f"features_{name}").output for name in axes], model.outputs[0])
    maps = [
        show(np.moveaxis(volumes[0], ["depth", "height", "width"].index(name), 0)).numpy() for name in axes
    ]
    pooled = [one.mean(axis=(1, 2))[None] for one in maps]
    expected = np.zeros((6, 6, 6))
    for place, name in enumerate(axes):
        steps = np.stack([np.zeros((6, 4))] * 24).reshape(24, 6, 4)
        steps[np.arange(24), np.arange(24) // 4, np.arange(24) % 4] = 1e-2
        ends = []
        for sign in (1, -1):
            moved = [np.repeat(one, 24, axis=0) for one in pooled]
            moved[place] = moved[place] + sign * steps
            ends.append(tail(moved).numpy()[:, 1])
        gradient = ((ends[0] - ends[1]) / 2e-2).reshape(6, 4) / 36
        own = np.maximum(np.einsum("nhwc,nc->nhw", maps[place], gradient), 0)
        expected += np.moveaxis(own, 0, ["depth", "height", "width"].index(name)) / len(axes)
    np.testing.assert_allclose(found[0], expected, atol=0.02 * expected.max())
