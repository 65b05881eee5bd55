"""The fused normalisation equals the layer of Keras that it replaces."""

from itertools import product

import keras
import numpy as np
import pytest
from keras import ops

from arrays import draw
from voxlift.models import backend
from voxlift.models.layers import FusedBatchNormalization

SHAPE = (2, 5, 3, 4, 6)  # [B, D, H, W, C]
TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2, "float16": 4e-3}


def draw_voxels(shape=SHAPE, seed=0):
    return draw(shape, seed, mean=3.0, sd=2.0)


def build_pair(shape=SHAPE, **settings):
    """The Keras layer and ours with the same, non-trivial weights."""
    pair = keras.layers.BatchNormalization(**settings), FusedBatchNormalization(**settings)
    for layer in pair:
        layer.build(shape)
    random = np.random.default_rng(1)
    weights = [random.uniform(0.5, 2.0, tuple(weight.shape)) for weight in pair[0].weights]
    for layer in pair:
        layer.set_weights(weights)
    return pair


def run(layer, voxels, training):
    """Outputs, gradients for inputs, gamma and beta, and the moving averages afterwards."""
    weights = draw_voxels(voxels.shape, 2)
    outputs = layer(voxels, training=training)
    moving = [variable.numpy() for variable in layer.non_trainable_variables]
    state = [variable.value for variable in layer.non_trainable_variables]

    def loss(inputs, *trainable):
        y, _ = layer.stateless_call(list(trainable), state, inputs, training=training)
        return ops.sum(ops.cast(y, "float32") * weights)

    _, gradients = backend.value_and_gradients(loss, voxels, *[v.value for v in layer.trainable_variables])
    return outputs, [np.asarray(ops.cast(tensor, "float32")) for tensor in (outputs, *gradients, *moving)]


def assert_equal(actual, expected, tolerance):
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_outputs_gradients_and_moving_averages_equal_keras(policy):
    dtype = keras.dtype_policies.get(policy).compute_dtype
    for shape, training in product((SHAPE, (3, 5, 7, 6), (2, 3, 5, 4, 16)), (True, False)):
        voxels = ops.cast(draw_voxels(shape), dtype)
        (_, expected), (outputs, actual) = (
            run(layer, voxels, training) for layer in build_pair(shape, momentum=0.7, dtype=policy)
        )
        assert keras.backend.standardize_dtype(outputs.dtype) == dtype
        assert_equal(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": False},
        {"center": False},
        {"axis": 4, "epsilon": 1e-5},
        {"axis": 3},
        {"axis": 1},
        {"renorm": True},
        {"synchronized": True},
        {"dtype": "float64"},
    ],
)
def test_every_setting_equals_keras(settings):
    voxels = draw_voxels().astype(settings.get("dtype", "float32"))
    (_, expected), (_, actual) = (run(layer, voxels, True) for layer in build_pair(**settings))
    assert_equal(actual, expected, 2e-5)


def test_masked_volumes_equal_keras():
    mask = np.random.default_rng(3).random(SHAPE[:-1]) > 0.4
    expected, actual = (layer(draw_voxels(), training=True, mask=mask) for layer in build_pair())
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_the_last_axis_uses_the_kernel_and_another_axis_does_not(monkeypatch):
    calls = []
    kernel = backend.fused_batch_norm
    monkeypatch.setattr(
        "voxlift.models.layers.normalization.fused_batch_norm",
        lambda *args, **kwargs: calls.append(1) or kernel(*args, **kwargs),
    )
    for axis, expected in ((-1, 1), (4, 2), (3, 2)):
        build_pair(axis=axis)[1](draw_voxels(), training=True)
        assert len(calls) == expected


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the kernel is TensorFlow's")
@pytest.mark.parametrize(
    ("channels", "dtype"), [(6, "float32"), (16, "bfloat16"), (24, "float32"), (32, "bfloat16")]
)
def test_the_kernel_runs_in_bfloat16_only_for_blocks_of_channels(channels, dtype, monkeypatch):
    tf = pytest.importorskip("tensorflow")
    kernel, seen = tf.compat.v1.nn.fused_batch_norm, []

    def watch(inputs, *arguments, **options):
        seen.append(inputs.dtype.name)
        return kernel(inputs, *arguments, **options)

    monkeypatch.setattr(tf.compat.v1.nn, "fused_batch_norm", watch)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _kind: [])
    layer = FusedBatchNormalization(dtype="mixed_bfloat16")
    outputs = layer(ops.cast(draw_voxels((2, 3, 5, 4, channels)), "bfloat16"), training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert seen == [dtype]


def test_statistics_stay_float32_where_half_precision_would_lose_them():
    # 4099 is not representable in float16: sums in half precision could not distinguish these channels.
    voxels = ops.cast(np.where(np.arange(7 * 11).reshape(1, 7, 1, 11, 1) % 2, 4096.0, 4104.0), "float16")
    layer = FusedBatchNormalization(momentum=0.0, dtype="mixed_float16")
    layer(voxels, training=True)
    exact = np.asarray(voxels, "float64")
    np.testing.assert_allclose(layer.moving_mean.numpy(), exact.mean(), rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance.numpy(), exact.var(), rtol=1e-3)
    assert {weight.dtype for weight in layer.weights} == {"float32"}


def test_frozen_layer_uses_and_keeps_its_moving_averages():
    expected, actual = build_pair()
    for layer in (expected, actual):
        layer.trainable = False
    before = [weight.numpy() for weight in actual.weights]
    np.testing.assert_allclose(
        actual(draw_voxels(), training=True), expected(draw_voxels(), training=True), rtol=1e-5
    )
    for weight, was in zip(actual.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), was)


def test_unknown_sizes_and_traced_graphs_equal_keras():
    import tensorflow as tf

    expected, actual = build_pair((None, None, None, None, 6), momentum=0.5)
    function = tf.function(
        lambda x: actual(x, training=True), input_signature=[tf.TensorSpec((None, None, None, None, 6))]
    )
    np.testing.assert_allclose(
        function(draw_voxels()), expected(draw_voxels(), training=True), rtol=1e-4, atol=1e-5
    )
    for ours, theirs in zip(actual.weights, expected.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)


def test_the_portable_computation_equals_the_kernel():
    weights = {
        name: draw_voxels((6,), seed) ** 2 for seed, name in enumerate(("gamma", "beta", "mean", "variance"))
    }
    for training in (True, False):
        kernel = backend.fused_batch_norm(
            ops.convert_to_tensor(draw_voxels()), **weights, epsilon=1e-3, training=training
        )
        plain = backend._plain_batch_norm(
            ops.convert_to_tensor(draw_voxels()), **weights, epsilon=1e-3, training=training
        )
        for ours, theirs in zip(kernel, plain, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_configuration_and_weights_are_those_of_the_keras_layer():
    expected, actual = build_pair(momentum=0.8, epsilon=1e-4, gamma_regularizer="l2", name="norm")
    assert actual.get_config() == expected.get_config()
    assert [weight.name for weight in actual.weights] == [weight.name for weight in expected.weights]
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(actual))
    assert isinstance(again, FusedBatchNormalization)
    assert again.get_config() == actual.get_config()


def test_gradients_are_refused_on_a_backend_without_them(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(NotImplementedError, match=r"KERAS_BACKEND.*'numpy'"):
        backend.value_and_gradients(lambda x: x, np.float32(1.0))
