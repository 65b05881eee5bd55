"""Behind Flatten a volume has its features once per slice: what follows is exact, or refused in words."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from voxlift.models.lifting import LiftError, plan_lift, verify_lift

POLICIES = ["isotropic", "preserve"]


def _network(function):
    image = keras.Input((6, 8, 2))
    flat = layers.Flatten()(layers.Conv2D(3, 3)(image))  # [B, 4 * 6 * 3]
    return keras.Model(image, function(flat))


def _adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(size=(9, 72)).astype("float32"))
    return layer


EXACT = {
    "prelu": lambda: layers.PReLU(alpha_initializer="he_normal"),
    "batch normalisation": layers.BatchNormalization,
    "dropout with a shape": lambda: layers.Dropout(0.5, noise_shape=(None, 72)),
    "a factor": lambda: lambda flat: layers.ReLU()(flat) * 0.5,
}
TOGETHER = {
    "Softmax": layers.Softmax,
    "Activation": lambda: layers.Activation("log_softmax"),
    "Normalization": _adapted,
    "UnitNormalization": layers.UnitNormalization,
    "Mean": lambda: lambda flat: ops.mean(flat, axis=-1, keepdims=True),
    "Cumsum": lambda: lambda flat: ops.cumsum(flat, axis=-1),
    "GetItem": lambda: lambda flat: flat[:, :5],
    "Multiply": lambda: lambda flat: flat * np.arange(72, dtype="float32"),
    "Split": lambda: lambda flat: ops.split(flat, 2, axis=-1)[0],
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", EXACT)
def test_what_treats_features_one_by_one_stays_exact(name, policy):
    plan = plan_lift(
        _network(lambda flat: layers.Dense(3)(EXACT[name]()(flat))), depth=5, depth_policy=policy
    )
    assert verify_lift(plan, settle=True).is_proved
    plan.build()(np.ones((2, 5, 6, 8, 2), "float32"), training=True)


@pytest.mark.parametrize("kind", TOGETHER)
def test_what_takes_features_together_is_refused(kind):
    network = _network(lambda flat: layers.Dense(3)(TOGETHER[kind]()(flat)))
    with pytest.raises(LiftError, match="a volume has them once per slice") as caught:
        plan_lift(network, depth=5)
    assert [problem.kind for problem in caught.value.problems] == [kind]
    assert verify_lift(plan_lift(network, depth=1, depth_policy="slicewise"), settle=True).is_proved


def test_a_softmax_activation_behind_flatten_changes_nothing_for_maps():
    image = keras.Input((6, 8, 2))
    network = keras.Model(image, layers.Activation("softmax")(layers.Conv2D(3, 3)(image)))
    assert verify_lift(plan_lift(network, depth=5), settle=True).is_proved


def test_tokens_of_a_vector_are_flattened_as_in_2d():
    def tokens(x):
        x = layers.Reshape((2, 4))(layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(x)))
        return layers.Dense(2)(layers.Flatten()(x + layers.MultiHeadAttention(2, 4)(x, x)))

    image = keras.Input((6, 8, 2))
    assert verify_lift(plan_lift(keras.Model(image, tokens(image)), depth=5), settle=True).is_proved
