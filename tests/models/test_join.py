"""Columns of a table as a second input: joined before the head, held by maps, kept in files."""

import keras
import numpy as np
import pytest
from keras import layers

from voxlift.models.baselines import build_baseline
from voxlift.models.batch_norm import fold_batch_norm
from voxlift.models.complexity import model_cost
from voxlift.models.explain import grad_cam, occlusion_map
from voxlift.models.features import build_feature_extractor
from voxlift.models.heads import append_cuts, append_scale, strip_output_layer
from voxlift.models.join import find_join, join_columns
from voxlift.models.lifting import plan_lift
from voxlift.models.loading import read_network
from voxlift.models.slice_model import pool_slices, unwrap_slices, wrap_slices

SHAPE = (5, 12, 16, 1)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return build_baseline("cnn", input_shape=SHAPE[1:], classes=3, filters=(4, 6, 8))


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    return [rng.random((2, *SHAPE), np.float32), rng.normal(size=(2, 3)).astype(np.float32)]


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("axis", ["depth", "width"])
def test_a_slice_model_scores_each_slice_with_the_columns_of_its_volume(axis, inputs):
    volumes, columns = inputs
    slices = np.moveaxis(volumes, {"depth": 1, "width": 3}[axis], 1)
    plane = build_baseline("cnn", input_shape=slices.shape[2:], classes=3, filters=(4, 6, 8))
    joined = join_columns(plane, width=3)
    model = wrap_slices(joined, input_shape=SHAPE, axis=axis)
    probabilities = [softmax(joined([slices[:, i], columns])) for i in range(slices.shape[1])]
    np.testing.assert_allclose(softmax(model(inputs)), np.mean(probabilities, axis=0), atol=1e-6)
    assert unwrap_slices(model) is joined


def test_a_lifted_network_takes_columns_and_survives_its_file(network, inputs, tmp_path):
    lifted = plan_lift(network, depth=SHAPE[0], depth_policy="preserve").build()
    lifted.layers[-1].bias.assign([1.0, 2.0, 3.0])
    joined = join_columns(lifted, width=3)
    np.testing.assert_array_equal(joined.layers[-1].bias, [1.0, 2.0, 3.0])
    outputs = np.asarray(joined(inputs))
    assert outputs.shape == (2, 3)
    assert not np.allclose(outputs, joined([inputs[0], inputs[1] + 1]))
    assert not np.allclose(outputs, joined([inputs[0] + 1, inputs[1]]))
    joined.save(tmp_path / "joined.keras")
    np.testing.assert_array_equal(read_network(tmp_path / "joined.keras")(inputs), outputs)
    np.testing.assert_allclose(fold_batch_norm(joined)(inputs), outputs, atol=1e-5)
    assert model_cost(joined).parameters == joined.count_params()


def test_endings_of_other_tasks_follow_the_joined_head(inputs):
    one = build_baseline("cnn", input_shape=SHAPE[1:], classes=1, filters=(4, 6, 8))
    with pytest.raises(ValueError, match="ends with TargetScale"):
        join_columns(append_scale(one, scale=2.0, offset=50.0), width=3)
    images = inputs[0][:, 0]
    joined = join_columns(strip_output_layer(append_scale(one, scale=2.0, offset=50.0)), width=3)
    number = append_scale(joined, scale=2.0, offset=50.0)
    np.testing.assert_allclose(
        number([images, inputs[1]]), 2 * np.asarray(joined([images, inputs[1]])) + 50, rtol=1e-5
    )
    grades = append_cuts(joined, (-1.0, 1.0))
    np.testing.assert_allclose(np.exp(grades([images, inputs[1]])).sum(axis=1), 1, atol=1e-5)
    assert find_join(strip_output_layer(grades)) is not None


@pytest.mark.parametrize("kind", ["lifted", "slices", "pooled"])
def test_maps_explain_the_image_with_the_columns_held(kind, network, inputs):
    if kind == "lifted":
        model = join_columns(plan_lift(network, depth=SHAPE[0], depth_policy="preserve").build(), width=3)
    elif kind == "slices":
        model = wrap_slices(join_columns(network, width=3), input_shape=SHAPE)
    else:
        extractor = build_feature_extractor(network)
        model = join_columns(pool_slices(extractor, input_shape=SHAPE, classes=3), width=3)
    volumes, columns = inputs
    maps = grad_cam(model, volumes, label=1, columns=columns)
    assert maps.shape == (2, *SHAPE[:3])
    alone = grad_cam(model, volumes[1:], label=1, columns=columns[1:])
    np.testing.assert_allclose(maps[1:], alone, atol=1e-6)
    falls = occlusion_map(model, volumes, label=1, columns=columns, size=4, stride=4)
    one = occlusion_map(model, volumes[1:], label=1, columns=columns[1:], size=4, stride=4)
    np.testing.assert_allclose(falls[1:], one, atol=1e-6)
    assert np.abs(falls).max() > 0


def test_features_are_those_of_the_image_before_the_join(network, inputs):
    joined = join_columns(network, width=3)
    images = inputs[0][:, 0]
    expected = build_feature_extractor(network)(images)
    np.testing.assert_array_equal(build_feature_extractor(joined)(images), expected)


def test_a_network_without_a_dense_end_is_refused():
    images = keras.Input((8, 8, 1))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(images))
    with pytest.raises(ValueError, match="GlobalAveragePooling2D"):
        join_columns(keras.Model(images, pooled), width=2)
