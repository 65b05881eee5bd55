"""One batch is learnt, or not, for a named reason; and nothing of it stays."""

import keras
import numpy as np
import pytest

from voxlift.app.training.preflight.trial_steps import likely_causes, overfit_batch

RANDOM = np.random.default_rng(0)


def network(rate):
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
    model = network(0.02)
    before = model.get_weights()
    found = overfit_batch(model, batch(), steps=40)
    assert found.has_learnt
    assert found.sentence.startswith("The model can learn")
    assert len(found.losses) == 40
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_rate_of_nothing_does_not_learn_and_the_key_is_named():
    found = overfit_batch(network(1e-9), batch(), steps=10)
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
