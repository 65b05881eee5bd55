"""Trial steps measure input and compute, and overfit one batch; nothing of them stays in the network."""

import time
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from voxlift.app.training.preflight.check import describe_rates
from voxlift.app.training.preflight.trial_steps import (
    Rates,
    likely_causes,
    measure_input,
    measure_rates,
    out_of_memory,
    overfit_batch,
    unchanged,
)


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3, 5, 7, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Conv3D(2, 3)(inputs))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def batches(count=6, delay=0.0):
    def wait(index):
        time.sleep(delay)
        return index

    def batch(index):
        index = tf.ensure_shape(tf.numpy_function(wait, [index], tf.int64), [])
        voxels = tf.random.stateless_normal((4, 3, 5, 7, 1), tf.stack([index, 0]))
        return voxels, tf.constant([0, 1, 0, 1], tf.int64), tf.ones(4)

    return tf.data.Dataset.range(count).map(batch)


def test_measuring_leaves_weights_statistics_and_seeds():
    model = network()
    before = [np.array(variable) for variable in model.variables]
    rates = measure_rates(model, batches(), steps_per_epoch=6, shares_cores=True)
    assert min(rates.input_seconds, rates.compute_seconds) > 0
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def test_what_is_trained_inside_is_undone_even_after_an_error():
    model = network()
    before = model.get_weights()

    def train_and_fail():
        with unchanged(model):
            model.fit(batches(), epochs=1, shuffle=False, verbose=0)
            assert any((a != b).any() for a, b in zip(model.get_weights(), before, strict=True))
            raise KeyError

    with pytest.raises(KeyError):
        train_and_fail()
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("count", [1, 5])
def test_the_inputs_time_is_that_of_one_batch(count):
    batch, seconds = measure_input(batches(count, delay=0.05), at_most=count)
    assert batch[0].shape == (4, 3, 5, 7, 1)
    assert 0.05 <= seconds < 0.5


def test_a_slow_input_is_named_and_decides_an_epochs_time_on_a_gpu():
    slow = Rates(0.5, 0.1, steps_per_epoch=20, shares_cores=False)
    assert (slow.bottleneck, slow.epoch_seconds) == ("input", 10)
    assert describe_rates(slow) != describe_rates(replace(slow, input_seconds=0.01))
    fast = Rates(0.1, 0.5, steps_per_epoch=20, shares_cores=True)
    assert fast.bottleneck == "compute"
    assert fast.epoch_seconds == pytest.approx(12)  # on a CPU both take their share of the cores


def test_lack_of_memory_in_the_backend_becomes_a_memory_error():
    with pytest.raises(MemoryError, match="OOM when allocating"), out_of_memory():
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    with pytest.raises(KeyError), out_of_memory():
        raise KeyError("else")


RANDOM = np.random.default_rng(0)


def learner(rate):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((3, 5, 7, 1))
    x = keras.layers.Conv3D(8, 3, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def batch(voxels=None, labels=(0, 1, 0, 1)):
    voxels = RANDOM.normal(size=(4, 3, 5, 7, 1)).astype("float32") if voxels is None else voxels
    return voxels, np.array(labels), np.ones(4, "float32")


def test_a_network_that_can_learn_is_reported_and_left_as_it_was():
    model = learner(0.02)
    before = model.get_weights()
    found = overfit_batch(model, batch(), steps=40)
    assert found.has_learnt
    assert found.sentence.startswith("The model can learn")
    assert len(found.losses) == 40
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_rate_of_nothing_does_not_learn_and_the_key_is_named():
    found = overfit_batch(learner(1e-9), batch(), steps=10)
    assert not found.has_learnt
    assert "optimizer.learning_rate" in found.sentence


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (batch(np.full((4, 3, 5, 7, 1), 2.0)), "preprocess.window_hu"),
        (batch(np.full((4, 3, 5, 7, 1), np.nan)), "preprocess.nonfinite"),
        (batch(RANDOM.normal(850, 2, (4, 3, 5, 7, 1))), "mean 8"),
        (batch(np.repeat(RANDOM.normal(size=(1, 3, 5, 7, 1)), 4, axis=0)), "two different labels"),
    ],
)
def test_the_cause_in_the_batch_is_named_first(made, named):
    assert named in likely_causes(made, [0.7, 0.7])[0]


def test_a_rising_loss_names_the_learning_rate():
    assert "optimizer.learning_rate" in likely_causes(batch(), [0.7, 3.0])[0]
