"""After Flatten a volume has its features once per slice: the layers after it are exact, or unsupported."""

import numpy as np
import pytest
from keras import layers, ops

from lifts import image_network, lift_problems, prove


def _flattened(function):
    """A network whose function reads [B, 4 * 6 * 3] flattened features."""
    return image_network(lambda x: function(layers.Flatten()(layers.Conv2D(3, 3)(x))), (6, 8, 2))


def _adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(size=(9, 72)).astype("float32"))
    return layer


ONE_BY_ONE = {
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


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_a_layer_that_reads_features_one_by_one_is_exact(name):
    for policy in ("isotropic", "preserve"):
        network = _flattened(lambda flat: layers.Dense(3)(ONE_BY_ONE[name]()(flat)))
        lifted = prove(network, policy, depth=5)
        lifted(np.ones((2, 5, 6, 8, 2), "float32"), training=True)


@pytest.mark.parametrize("kind", TOGETHER)
def test_a_layer_that_reads_features_together_is_reported(kind):
    network = _flattened(lambda flat: layers.Dense(3)(TOGETHER[kind]()(flat)))
    (problem,) = lift_problems(network, depth=5)
    assert problem.kind == kind
    assert "Flatten" in problem.fix
    prove(network, "slicewise", depth=1)


def test_another_size_is_reported_before_trained_weights_and_accepted_without():
    network = _flattened(layers.Dense(2))
    (problem,) = lift_problems(network, input_shape=(5, 6, 7))
    assert (problem.kind, "init='random'" in problem.fix) == ("Flatten", True)
    (problem,) = lift_problems(network)
    assert problem.kind == "Flatten"  # any number of slices


def test_a_softmax_of_maps_is_exact():
    prove(image_network(lambda x: layers.Activation("softmax")(layers.Conv2D(3, 3)(x)), (6, 8, 2)), depth=5)
