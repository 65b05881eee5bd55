"""The features of a network are the input of its head, whatever the network scores."""

import keras
import numpy as np
import pytest

from voxlift.models.baselines.small import build_cnn
from voxlift.models.features import build_feature_extractor
from voxlift.models.lifting import plan_lift
from voxlift.models.slice_model import wrap_slices

SHAPE = (5, 8, 12, 1)


def build_network():
    return build_cnn(input_shape=SHAPE[1:], classes=3, filters=(4, 6, 7), dropout=0.0)


def test_the_head_of_a_lifted_network_makes_its_scores_of_the_features():
    network = plan_lift(build_network(), depth=SHAPE[0], init="mean").build()
    volumes = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    features = build_feature_extractor(network).predict(volumes, verbose=0)
    assert features.shape == (2, 7)
    kernel, bias = network.layers[-1].get_weights()
    np.testing.assert_allclose(features @ kernel + bias, network.predict(volumes, verbose=0), atol=1e-5)


@pytest.mark.parametrize("aggregate", ["mean", "attention"])
def test_features_of_a_slice_model_are_the_mean_over_its_slices(aggregate):
    network = build_network()
    model = wrap_slices(network, input_shape=SHAPE, aggregate=aggregate)
    volumes = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    features = build_feature_extractor(model).predict(volumes, verbose=0)
    extractor = build_feature_extractor(network)
    expected = extractor.predict(volumes.reshape(-1, *SHAPE[1:]), verbose=0).reshape(2, SHAPE[0], 7)
    np.testing.assert_allclose(features, expected.mean(axis=1), atol=1e-5)


def test_a_feature_map_is_averaged_over_its_positions_and_a_head_that_is_a_network_refused():
    inputs = keras.Input(SHAPE)
    maps = keras.layers.Conv3D(6, 1)(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling3D()(keras.layers.Conv3D(3, 1)(maps)))
    assert build_feature_extractor(model).output_shape == (None, 6)
    assert build_feature_extractor(keras.Model(inputs, maps)).output_shape == (None, 6)
    nested = keras.Model(inputs, model(inputs))
    with pytest.raises(ValueError, match="head"):
        build_feature_extractor(nested)
