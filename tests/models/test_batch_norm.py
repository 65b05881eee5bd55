"""Folding keeps the scores of a network; recalibration replaces the moving statistics and nothing else."""

import keras
import numpy as np
import pytest
from keras import layers

from arrays import draw
from voxlift.models import to_3d
from voxlift.models.baselines import build_baseline
from voxlift.models.batch_norm import find_folds, fold_batch_norm, recalibrate_batch_norm
from voxlift.models.layers import ChannelBias, FusedBatchNormalization

# TensorFlow's variables do not accept numpy 2's copy keyword, which Keras passes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (9, 20, 24, 1)  # depth, height, width, channels
VOLUMES = draw((2, *SHAPE), 3)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)  # a bound on rounding holds for given weights


def randomise(network, seed=4):
    """Give the normalisations random weights, so that none is the identity."""
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
    network = randomise(to_3d(flat, depth=SHAPE[0]))
    folded = fold_batch_norm(network)
    kinds = [type(layer) for layer in folded.layers]
    assert not any(issubclass(kind, layers.BatchNormalization) for kind in kinds)
    assert ChannelBias in kinds
    assert_same_scores(network, folded)


def test_the_given_network_is_unchanged_and_its_later_training_does_not_change_the_folded():
    network = randomise(to_3d(build_baseline("cnn", input_shape=SHAPE[1:], classes=2), depth=SHAPE[0]))
    before = [weight.copy() for weight in network.get_weights()]
    folded = fold_batch_norm(network)
    scores = folded.predict_on_batch(VOLUMES)
    assert all(map(np.array_equal, before, network.get_weights()))
    network.set_weights([weight * 2 for weight in before])
    assert np.array_equal(scores, folded.predict_on_batch(VOLUMES))


def test_a_network_within_a_network_is_folded():
    inner = randomise(build_baseline("cnn", input_shape=SHAPE[1:], classes=2))
    inputs = keras.Input(SHAPE[1:])
    outer = keras.Model(inputs, layers.Rescaling(2.0)(inner(inputs)))
    folded = fold_batch_norm(outer)
    assert len(find_folds(outer)) == len(find_folds(inner)) > 0
    assert find_folds(folded) == ()
    assert_same_scores(outer, folded, VOLUMES[:, 0])


def build_small(between, *, axis=-1, is_output=False):
    """A convolution with bias, the layers between, and a normalisation; the first may be an output too."""
    inputs = keras.Input((7, 11, 2))
    convolved = layers.Conv2D(4, 3, bias_initializer="random_normal", name="convolution")(inputs)
    found = layers.ReLU()(layers.BatchNormalization(axis=axis)(between(convolved)))
    return randomise(keras.Model(inputs, [found, convolved] if is_output else found))


def test_the_bias_of_a_convolution_is_folded_too():
    network = build_small(lambda x: x)
    assert len(find_folds(network)) == 1
    assert_same_scores(network, fold_batch_norm(network), VOLUMES[:, :7, :11, :2, 0])


def branched(x):
    return layers.Add()([x, layers.Identity()(x)])


@pytest.mark.parametrize(
    "network",
    [
        lambda: build_small(layers.Activation("tanh")),
        lambda: build_small(branched),
        lambda: build_small(lambda x: x, axis=1),
        lambda: build_small(lambda x: x, is_output=True),
    ],
    ids=["an activation between", "another reader", "another axis", "an output of its own"],
)
def test_a_network_that_cannot_be_folded_is_returned_itself(network):
    kept = network()
    assert find_folds(kept) == ()
    assert fold_batch_norm(kept) is kept


def test_a_network_with_an_operation_that_is_no_layer_is_folded():
    images = keras.Input(SHAPE)
    x = layers.BatchNormalization()(layers.Conv3D(4, 3, use_bias=False)(images)) + 3.0
    network = randomise(keras.Model(images, layers.Dense(2)(layers.GlobalAveragePooling3D()(x))))
    assert find_folds(network)
    assert_same_scores(network, fold_batch_norm(network))


def test_a_shared_convolution_is_not_folded():
    convolve = layers.Conv2D(2, 3, padding="same")
    inputs = keras.Input((7, 11, 2))
    shared = keras.Model(inputs, layers.BatchNormalization()(convolve(convolve(inputs))))
    assert find_folds(shared) == ()


def test_a_subclassed_network_is_returned_itself():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    own = Own()
    assert fold_batch_norm(own) is own


def test_mixed_precision_keeps_its_dtypes_and_scores_within_its_rounding():
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = randomise(to_3d(build_baseline("cnn", input_shape=SHAPE[1:], classes=2), depth=SHAPE[0]))
    folded = fold_batch_norm(network)
    assert [layer.dtype_policy.name for layer in folded.layers] == [
        layer.dtype_policy.name for layer in network.layers
    ]
    assert_same_scores(network, folded, tolerance=3e-2)


def test_named_inputs_and_outputs_keep_their_names():
    age, scan = keras.Input((1,), name="age"), keras.Input(SHAPE[1:], name="scan")
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(2, 3)(scan)))
    score = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), age])
    network = randomise(keras.Model({"scan": scan, "age": age}, {"score": score, "map": x}))
    folded = fold_batch_norm(network)
    assert len(find_folds(network)) == 1
    inputs = {"scan": VOLUMES[:, 0], "age": np.ones((2, 1), "float32")}
    expected, found = network(inputs), folded(inputs)
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


def build_network(norm):
    inputs = keras.Input((4, 5, 6, 2))
    inner = keras.Sequential([norm(momentum=0.7, name="norm")], name="inner")
    return keras.Model(inputs, layers.Dense(3)(inner(inputs)))


@pytest.mark.parametrize("norm", [layers.BatchNormalization, FusedBatchNormalization])
def test_statistics_are_the_average_over_batches_and_no_other_weight_changes(norm):
    network = build_network(norm)
    batches = [draw((3, 4, 5, 6, 2), seed, mean=seed, sd=seed + 1) for seed in range(4)]
    layer = network.get_layer("inner").layers[-1]
    gamma, beta, _, _ = layer.get_weights()
    dense = network.layers[-1].get_weights()
    assert recalibrate_batch_norm(network, iter(batches)) == 4
    after = layer.get_weights()
    np.testing.assert_allclose(
        after[2], np.mean([b.mean(axis=(0, 1, 2, 3)) for b in batches], axis=0), rtol=1e-4
    )
    np.testing.assert_allclose(
        after[3], np.mean([b.var(axis=(0, 1, 2, 3)) for b in batches], axis=0), rtol=1e-2
    )
    np.testing.assert_array_equal(after[0], gamma)
    np.testing.assert_array_equal(after[1], beta)
    np.testing.assert_array_equal(network.layers[-1].get_weights()[0], dense[0])
    assert layer.momentum == 0.7


def test_recalibration_leaves_a_network_without_normalisation_alone():
    inputs = keras.Input((3,))
    assert recalibrate_batch_norm(keras.Model(inputs, layers.Dense(1)(inputs)), iter([])) == 0


def test_recalibration_without_a_batch_is_an_error():
    with pytest.raises(ValueError, match="batch"):
        recalibrate_batch_norm(build_network(FusedBatchNormalization), iter([]))
