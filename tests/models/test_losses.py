"""The losses against plain numpy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from voxlift.models.losses import (
    build_findings_loss,
    build_grades_loss,
    build_loss,
    build_number_loss,
    focal_loss,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (7, 3)).astype("float32")
LABELS = RNG.integers(0, 3, 7)


def oracle(targets, logits, gamma):
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    return -(targets * (1 - p) ** gamma * np.log(p)).sum(axis=1)


@pytest.mark.parametrize(("gamma", "smoothing"), [(0.0, 0.2), (0.5, 0.0), (2.0, 0.2), (5.0, 0.0)])
def test_the_loss_equals_numpy(gamma, smoothing):
    settings = {"classes": 3, "focal_gamma": gamma, "label_smoothing": smoothing}
    targets = np.eye(3)[LABELS] * (1 - smoothing) + smoothing / 3
    found = build_loss("focal", **settings)(LABELS, LOGITS)
    np.testing.assert_allclose(found, oracle(targets, LOGITS, gamma), rtol=2e-5, atol=1e-6)
    soft = build_loss("focal", **settings, soft_labels=True)(np.eye(3)[LABELS], LOGITS)
    np.testing.assert_allclose(soft, found, rtol=1e-6)


def test_cross_entropy_equals_keras():
    found = build_loss(classes=3)(LABELS, LOGITS)
    keras_own = keras.losses.sparse_categorical_crossentropy(LABELS, LOGITS, from_logits=True)
    np.testing.assert_allclose(found, keras_own, rtol=1e-5, atol=1e-6)


def test_sample_weights_scale_the_loss_of_each_example():
    weights = RNG.uniform(0.5, 2, 7).astype("float32")
    inputs = keras.Input((3,))
    network = keras.Model(inputs, inputs)
    network.compile(loss=build_loss(classes=3))
    found = network.evaluate(LOGITS, LABELS, sample_weight=weights, batch_size=7, verbose=0)
    assert found == pytest.approx((oracle(np.eye(3)[LABELS], LOGITS, 0) * weights).mean(), rel=1e-5)


def test_an_easy_example_has_a_smaller_loss_and_a_finite_gradient():
    import tensorflow as tf

    logits = tf.constant([[60.0, -60.0], [0.1, 0.0], [-60.0, 60.0]])
    targets = tf.constant([[1.0, 0.0]] * 3)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = focal_loss(targets, logits, gamma=0.5)
    assert np.isfinite(tape.gradient(losses, logits)).all()
    assert losses[0] < losses[1] < losses[2]


def test_float16_logits_are_computed_in_float32():
    found = build_loss(classes=2)(np.array([0]), np.array([[-300.0, 300.0]], np.float16))
    assert str(found.dtype).endswith("float32'>")
    assert float(found[0]) == 600.0


def test_the_loss_of_findings_is_that_of_the_known_cells_and_unknown_ones_give_no_gradient():
    logits = keras.Variable(RNG.normal(0, 3, (6, 4)))
    targets = RNG.integers(0, 2, (6, 4)).astype("float32")
    targets[RNG.random((6, 4)) < 0.4] = np.nan
    found = np.asarray(build_findings_loss()(targets, logits))
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    own = np.where(np.isnan(targets), 0.0, -np.where(targets == 1, np.log(p), np.log1p(-p)))
    np.testing.assert_allclose(found, own.mean(axis=1), rtol=1e-4)
    with tf.GradientTape() as tape:
        total = keras.ops.sum(build_findings_loss("focal", label_smoothing=0.1)(targets, logits))
    (slope,) = tape.gradient(total, [logits.value])
    assert np.isfinite(slope).all()
    assert (np.asarray(slope)[np.isnan(targets)] == 0).all()


def test_the_losses_of_grades_are_those_of_the_cuts_and_of_the_classes():
    log_p = np.log(RNG.dirichlet(np.ones(4), 7)).astype("float32")
    labels = RNG.integers(0, 4, 7)
    above = 1 - np.cumsum(np.exp(log_p), axis=1)[:, :-1]  # [N, cuts]
    is_above = labels[:, None] > np.arange(3)
    expected = -np.where(is_above, np.log(above), np.log1p(-above)).sum(axis=1)
    np.testing.assert_allclose(build_grades_loss(classes=4)(labels, log_p), expected, rtol=1e-4)
    soft = build_grades_loss(classes=4, soft_labels=True)(np.eye(4)[labels], log_p)
    np.testing.assert_allclose(soft, expected, rtol=1e-4)
    likelihood = build_grades_loss("cross_entropy", classes=4)(labels, log_p)
    np.testing.assert_allclose(likelihood, -log_p[np.arange(7), labels], rtol=1e-5)


def test_the_losses_of_a_number_are_of_standardised_errors():
    targets, found = RNG.normal(60, 20, (9, 1)), RNG.normal(60, 20, (9, 1))
    own = keras.losses.huber(targets / 10, found / 10)
    np.testing.assert_allclose(build_number_loss(scale=10.0)(targets, found), own, rtol=1e-4)
    squared = build_number_loss("squared", scale=10.0)(targets, found)
    np.testing.assert_allclose(squared, ((targets - found)[:, 0] / 10) ** 2, rtol=1e-4)
