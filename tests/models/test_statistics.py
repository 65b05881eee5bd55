import keras
import numpy as np
import pytest

from voxlift.models.layers import FusedBatchNormalization
from voxlift.models.batch_norm import recalibrate_batch_norm

# Keras's own conversion of a TensorFlow variable to numpy raises it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RNG = np.random.default_rng(0)


def build_network(norm):
    inputs = keras.Input((4, 5, 6, 2))
    inner = keras.Sequential([norm(momentum=0.7, name="norm")], name="inner")
    return keras.Model(inputs, keras.layers.Dense(3)(inner(inputs)))


@pytest.mark.parametrize("norm", [keras.layers.BatchNormalization, FusedBatchNormalization])
def test_statistics_are_the_average_over_batches_and_nothing_else_moves(norm):
    network = build_network(norm)
    batches = [RNG.normal(k, k + 1, size=(3, 4, 5, 6, 2)).astype("float32") for k in range(4)]
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


def test_a_network_without_normalisation_is_left_alone():
    inputs = keras.Input((3,))
    assert recalibrate_batch_norm(keras.Model(inputs, keras.layers.Dense(1)(inputs)), iter([])) == 0


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="at least one batch"):
        recalibrate_batch_norm(build_network(FusedBatchNormalization), iter([]))
