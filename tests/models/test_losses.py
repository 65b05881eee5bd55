"""The losses against plain numpy."""

import keras
import numpy as np
import pytest

from voxlift.models.losses import build_loss, focal_loss

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
