"""A folded network scores as the network that it was made of."""

import keras
import numpy as np
import pytest
from keras import layers

from voxlift.models import to_3d
from voxlift.models.baselines import build_baseline
from voxlift.models.batch_norm import find_folds, fold_batch_norm
from voxlift.models.layers import ChannelBias

SHAPE = (9, 20, 24, 1)
VOLUMES = np.random.default_rng(3).normal(size=(2, *SHAPE)).astype("float32")


def settle(network, seed=4):
    """Give every weight a value of its own, so that nothing folds by luck."""
    random = np.random.default_rng(seed)
    for layer in network._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 2.0, weight.shape) for weight in layer.get_weights()])
    return network


def assert_same_scores(network, folded, inputs=VOLUMES, tolerance=1e-5):
    expected, found = network.predict_on_batch(inputs), folded.predict_on_batch(inputs)
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_lifted_baselines_score_the_same_with_every_normalisation_folded(name):
    flat = build_baseline(name, input_shape=SHAPE[1:], classes=3, filters=[4, 6, 8])
    network = settle(to_3d(flat, depth=SHAPE[0]))
    folded = fold_batch_norm(network)
    kinds = [type(layer) for layer in folded.layers]
    assert not any(issubclass(kind, layers.BatchNormalization) for kind in kinds)
    assert ChannelBias in kinds
    assert_same_scores(network, folded)


def test_the_given_network_is_left_alone_and_later_training_does_not_reach_the_folded():
    network = settle(to_3d(build_baseline("cnn", input_shape=SHAPE[1:], classes=2), depth=SHAPE[0]))
    before = [weight.copy() for weight in network.get_weights()]
    folded = fold_batch_norm(network)
    scores = folded.predict_on_batch(VOLUMES)
    assert all(map(np.array_equal, before, network.get_weights()))
    network.set_weights([weight * 2 for weight in before])
    assert np.array_equal(scores, folded.predict_on_batch(VOLUMES))


def test_a_network_within_a_network_is_folded():
    inner = settle(build_baseline("cnn", input_shape=SHAPE[1:], classes=2))
    inputs = keras.Input(SHAPE[1:])
    outer = keras.Model(inputs, layers.Rescaling(2.0)(inner(inputs)))
    folded = fold_batch_norm(outer)
    assert len(find_folds(outer)) == len(find_folds(inner)) > 0
    assert find_folds(folded) == ()
    assert_same_scores(outer, folded, VOLUMES[:, 0])


def small(between, *, axis=-1, ends=False):
    """A convolution with bias, what stands between, a normalisation; the first may be an output too."""
    inputs = keras.Input((7, 11, 2))
    convolved = layers.Conv2D(4, 3, bias_initializer="random_normal", name="convolution")(inputs)
    found = layers.ReLU()(layers.BatchNormalization(axis=axis)(between(convolved)))
    return settle(keras.Model(inputs, [found, convolved] if ends else found))


def test_the_bias_of_a_convolution_is_carried_through():
    network = small(lambda x: x)
    assert len(find_folds(network)) == 1
    assert_same_scores(network, fold_batch_norm(network), VOLUMES[:, :7, :11, :2, 0])


def branched(x):
    return layers.Add()([x, layers.Identity()(x)])


@pytest.mark.parametrize(
    "network",
    [
        lambda: small(layers.Activation("tanh")),
        lambda: small(branched),
        lambda: small(lambda x: x, axis=1),
        lambda: small(lambda x: x, ends=True),
    ],
    ids=["an activation between", "another reader", "another axis", "an output of its own"],
)
def test_what_cannot_be_folded_stays(network):
    kept = network()
    assert find_folds(kept) == ()
    assert fold_batch_norm(kept) is kept


def test_a_shared_convolution_is_not_folded():
    convolve = layers.Conv2D(2, 3, padding="same")
    inputs = keras.Input((7, 11, 2))
    shared = keras.Model(inputs, layers.BatchNormalization()(convolve(convolve(inputs))))
    assert find_folds(shared) == ()


def test_a_subclassed_network_comes_back_itself():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    own = Own()
    assert fold_batch_norm(own) is own


def test_mixed_precision_keeps_its_dtypes_and_scores_within_its_rounding():
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = settle(to_3d(build_baseline("cnn", input_shape=SHAPE[1:], classes=2), depth=SHAPE[0]))
    folded = fold_batch_norm(network)
    assert [layer.dtype_policy.name for layer in folded.layers] == [
        layer.dtype_policy.name for layer in network.layers
    ]
    assert_same_scores(network, folded, tolerance=3e-2)


def test_named_inputs_and_outputs_keep_their_names():
    age, scan = keras.Input((1,), name="age"), keras.Input(SHAPE[1:], name="scan")
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(2, 3)(scan)))
    score = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), age])
    network = settle(keras.Model({"scan": scan, "age": age}, {"score": score, "map": x}))
    folded = fold_batch_norm(network)
    assert len(find_folds(network)) == 1
    inputs = {"scan": VOLUMES[:, 0], "age": np.ones((2, 1), "float32")}
    expected, found = network(inputs), folded(inputs)
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)
