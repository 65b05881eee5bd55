"""Depthwise, separable and ACS convolution against plain numpy, gradients included."""

from itertools import product

import keras
import numpy as np
import pytest
from keras import ops

from arrays import draw
from voxlift.models import backend
from voxlift.models.layers import ACSConv3D, DepthwiseConv3D, SeparableConv3D
from voxlift.models.layers.acs import split_views

SHAPE = (2, 5, 7, 8, 6)  # [B, D, H, W, C]

SETTINGS = [
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": (2, 3, 4), "padding": "same"},
    {"kernel_size": (4, 2, 3), "padding": "valid"},
    {"kernel_size": (1, 3, 3), "padding": "same"},
    {"kernel_size": (3, 1, 1), "padding": "valid"},
    {"kernel_size": 3, "strides": 2, "padding": "same"},
    {"kernel_size": 3, "strides": 2, "padding": "valid"},
    {"kernel_size": (2, 3, 3), "strides": (3, 2, 2), "padding": "same"},
    {"kernel_size": 3, "strides": (1, 2, 3), "padding": "same"},
    {"kernel_size": 3, "strides": (2, 1, 2), "padding": "valid"},
    {"kernel_size": 1, "strides": (2, 2, 2), "padding": "same"},
    {"kernel_size": 3, "dilation_rate": 2, "padding": "same"},
    {"kernel_size": 3, "dilation_rate": (2, 1, 3), "padding": "valid"},
    {"kernel_size": (2, 3, 2), "dilation_rate": (3, 1, 2), "padding": "same"},
    {"kernel_size": 3, "dilation_rate": (2, 2, 1), "strides": (1, 2, 2), "padding": "same"},
    {"kernel_size": 2, "dilation_rate": 2, "strides": 2, "padding": "valid"},
]


def build(layer, shape=SHAPE):
    layer.build(shape)
    layer.set_weights([draw(tuple(weight.shape), seed) for seed, weight in enumerate(layer.weights, 1)])
    return layer


def spread(kernel):
    """Depthwise kernel [kd, kh, kw, C, M] as a dense one [kd, kh, kw, C, C * M]."""
    *taps, channels, multiplier = kernel.shape
    dense = np.zeros((*taps, channels, channels, multiplier), kernel.dtype)
    for channel in range(channels):
        dense[..., channel, channel, :] = kernel[..., channel, :]
    return dense.reshape(*taps, channels, channels * multiplier)


def gather(dense, multiplier):
    """Back from `spread`: the entries that a depthwise kernel owns."""
    *taps, channels, _ = dense.shape
    cube = dense.reshape(*taps, channels, channels, multiplier)
    return np.stack([cube[..., c, c, :] for c in range(channels)], axis=-2)


def run(layer, voxels):
    """Outputs, and gradients of sum(outputs * weights) for the input and every weight, with those weights."""
    outputs = np.asarray(layer(voxels))
    weights = draw(outputs.shape, 9)

    def loss(inputs, *variables):
        return ops.sum(layer.stateless_call(list(variables), [], inputs)[0] * weights)

    _, gradients = backend.value_and_gradients(loss, voxels, *[v.value for v in layer.trainable_variables])
    return outputs, weights, [np.asarray(gradient) for gradient in gradients]


def arguments(layer):
    return {"strides": layer.strides, "padding": layer.padding, "dilation": layer.dilation_rate}


def assert_close(actual, expected, settings):
    assert actual.shape == expected.shape, settings
    assert np.abs(actual - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1.0), settings


def test_depthwise_equals_numpy_with_gradients(convolution):
    for settings, multiplier in product(SETTINGS, (1, 2)):
        layer = build(DepthwiseConv3D(**settings, depth_multiplier=multiplier))
        kernel, bias = layer.get_weights()
        oracle = convolution(draw(SHAPE), spread(kernel), **arguments(layer))
        outputs, weights, (input_gradient, kernel_gradient, bias_gradient) = run(layer, draw(SHAPE))
        assert outputs.shape == layer.compute_output_shape(SHAPE)
        assert_close(outputs, oracle.outputs() + bias, settings)
        expected_input, expected_kernel = oracle.gradients(weights)
        assert_close(input_gradient, expected_input, settings)
        assert_close(kernel_gradient, gather(expected_kernel, multiplier), settings)
        assert_close(bias_gradient, weights.sum((0, 1, 2, 3)), settings)


def test_separable_equals_numpy_with_gradients(convolution):
    for settings in SETTINGS[::3]:
        layer = build(SeparableConv3D(4, **settings, depth_multiplier=2))
        depthwise, pointwise, bias = layer.get_weights()
        assert pointwise.shape == (1, 1, 1, 12, 4)
        oracle = convolution(draw(SHAPE), spread(depthwise), **arguments(layer))
        outputs, weights, gradients = run(layer, draw(SHAPE))
        features = oracle.outputs()
        assert outputs.shape == layer.compute_output_shape(SHAPE)
        assert_close(outputs, features @ pointwise[0, 0, 0] + bias, settings)
        expected_input, expected_depthwise = oracle.gradients(weights @ pointwise[0, 0, 0].T)
        assert_close(gradients[0], expected_input, settings)
        assert_close(gradients[1], gather(expected_depthwise, 2), settings)
        assert_close(gradients[2][0, 0, 0], np.einsum("bdhwi,bdhwo->io", features, weights), settings)
        assert_close(gradients[3], weights.sum((0, 1, 2, 3)), settings)


ACS_SETTINGS = [
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": (3, 5), "padding": "same"},
    {"kernel_size": (5, 1), "padding": "same"},
    {"kernel_size": (1, 3), "padding": "valid"},
    {"kernel_size": 1, "strides": 2, "padding": "same"},
    {"kernel_size": 3, "strides": 2, "padding": "same"},
    {"kernel_size": 3, "strides": (1, 2, 3), "padding": "valid"},
    {"kernel_size": 4, "strides": (2, 1, 2), "padding": "same"},
    {"kernel_size": 2, "dilation_rate": 2, "padding": "same"},
    {"kernel_size": 3, "dilation_rate": (2, 1, 2), "padding": "valid"},
    {"kernel_size": (3, 2), "dilation_rate": (1, 3, 2), "padding": "same"},
]


def test_acs_equals_numpy_with_its_dense_kernel_and_gradients(convolution):
    for settings, filters in product(ACS_SETTINGS, (7, 2)):
        layer = build(ACSConv3D(filters, **settings))
        kernel, bias = layer.get_weights()
        dense = layer.dense_kernel()
        assert kernel.shape == (*layer.kernel_size, 6, filters)
        oracle = convolution(draw(SHAPE), dense, **arguments(layer))
        outputs, weights, (input_gradient, kernel_gradient, bias_gradient) = run(layer, draw(SHAPE))
        assert outputs.shape == layer.compute_output_shape(SHAPE)
        assert_close(outputs, oracle.outputs() + bias, settings)
        expected_input, expected_dense = oracle.gradients(weights)
        assert_close(input_gradient, expected_input, settings)
        assert_close(bias_gradient, weights.sum((0, 1, 2, 3)), settings)
        planes = [expected_dense[..., i][dense[..., i] != 0] for i in range(filters)]
        expected_kernel = np.stack([plane.reshape(kernel.shape[:3]) for plane in planes], axis=-1)
        assert_close(kernel_gradient, expected_kernel, settings)


def test_grouped_acs_equals_each_group_alone(convolution):
    for settings, groups in product((ACS_SETTINGS[0], ACS_SETTINGS[6]), (3, 6)):
        layer = build(ACSConv3D(12, groups=groups, **settings))
        dense, bias = layer.dense_kernel(), layer.get_weights()[1]
        channels, filters = np.split(draw(SHAPE), groups, -1), np.split(dense, groups, -1)
        expected = [
            convolution(voxels, kernel, **arguments(layer)).outputs()
            for voxels, kernel in zip(channels, filters, strict=True)
        ]
        assert_close(run(layer, draw(SHAPE))[0], np.concatenate(expected, axis=-1) + bias, settings)


def test_acs_places_the_2d_axes_as_documented():
    layer = build(ACSConv3D(3, (3, 5), padding="same"))
    kernel, dense = layer.get_weights()[0], layer.dense_kernel()
    assert dense.shape == (3, 5, 5, 6, 3)
    np.testing.assert_array_equal(dense[1, 1:4, :, :, 0], kernel[..., 0])  # axial: height, width
    np.testing.assert_array_equal(dense[:, 2, :, :, 1], kernel[..., 1])  # coronal: depth, width
    np.testing.assert_array_equal(dense[:, :, 2, :, 2], kernel[..., 2])  # sagittal: depth, height
    assert np.count_nonzero(dense) == kernel.size


def test_the_filters_are_split_evenly_into_views():
    for count in range(1, 20):
        ranges = split_views(count)
        sizes = [last - first for first, last in ranges]
        assert ranges[0][0] == 0
        assert sum(sizes) == ranges[-1][1] == count
        assert sizes == sorted(sizes, reverse=True)
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", [DepthwiseConv3D, SeparableConv3D, ACSConv3D])
def test_half_precision_computes_in_half_and_stores_float32(policy, kind):
    positional = (3,) if kind is DepthwiseConv3D else (4, 3)
    for settings in ({"strides": 2}, {"dilation_rate": 2}):
        layer, exact = (
            build(kind(*positional, padding="same", dtype=dtype, **settings)) for dtype in (policy, "float32")
        )
        outputs, expected = layer(draw(SHAPE)), np.asarray(exact(draw(SHAPE)))
        assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
        assert {weight.dtype for weight in layer.weights} == {"float32"}
        assert (
            np.abs(np.asarray(ops.cast(outputs, "float32")) - expected).max() < 0.03 * np.abs(expected).max()
        )


@pytest.mark.parametrize(
    "layer",
    [
        DepthwiseConv3D(3, strides=2, padding="same"),
        DepthwiseConv3D((2, 3, 3), strides=(3, 1, 2), padding="valid"),
        DepthwiseConv3D(3, strides=2, dilation_rate=2, padding="same"),
        SeparableConv3D(4, 3, strides=(2, 1, 1), padding="same"),
        ACSConv3D(5, 3, strides=2, padding="same"),
        ACSConv3D(5, 4, padding="valid"),
    ],
)
def test_unknown_sizes_in_a_graph(layer):
    import tensorflow as tf

    layer = type(layer).from_config(layer.get_config())
    dynamic = (None, None, None, None, 6)
    build(layer, dynamic)
    assert layer.compute_output_shape(dynamic)[:4] == (None,) * 4
    graph = tf.function(layer, input_signature=[tf.TensorSpec(dynamic)])
    for depth in (5, 6, 7):
        voxels = draw((2, depth, 7, 8, 6))
        outputs = graph(voxels)
        assert tuple(outputs.shape) == layer.compute_output_shape(voxels.shape)
        np.testing.assert_allclose(outputs, layer(voxels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "positional"), [(DepthwiseConv3D, (3,)), (SeparableConv3D, (4, 3)), (ACSConv3D, (4, 3))]
)
def test_every_setting_survives_a_round_trip(kind, positional):
    layer = kind(
        *positional,
        strides=(1, 2, 2),
        padding="same",
        activation="relu",
        bias_initializer="ones",
        bias_regularizer="l2",
        bias_constraint="non_neg",
        activity_regularizer="l1",
        name="here",
        dtype="mixed_bfloat16",
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is kind
    assert again.get_config() == layer.get_config()
    again.build(SHAPE)
    assert np.asarray(ops.cast(again(draw(SHAPE)), "float32")).min() == 0.0
    assert again.bias.numpy().tolist() == [1.0] * again.bias.shape[0]
    assert kind(*positional, use_bias=False)(draw(SHAPE)).shape[-1] in (4, 6)


def test_each_weight_has_its_own_regulariser():
    layer = build(
        SeparableConv3D(
            4, 3, depthwise_regularizer=keras.regularizers.L2(0.5), pointwise_constraint="unit_norm"
        )
    )
    np.testing.assert_allclose(layer.losses[0], 0.5 * (layer.get_weights()[0] ** 2).sum(), rtol=1e-5)
    assert layer.pointwise_kernel.constraint is not None
    assert layer.depthwise_kernel.constraint is None


@pytest.mark.parametrize(
    ("kind", "arguments", "named"),
    [
        (DepthwiseConv3D, {"kernel_size": 0}, "kernel_size.*0"),
        (DepthwiseConv3D, {"kernel_size": (3, 3)}, r"3 .*kernel_size.*\(3, 3\)"),
        (DepthwiseConv3D, {"kernel_size": 3, "depth_multiplier": 0}, "depth_multiplier.*0"),
        (DepthwiseConv3D, {"kernel_size": 3, "padding": "causal"}, "padding.*'causal'"),
        (SeparableConv3D, {"filters": 4, "kernel_size": 3, "data_format": "channels_first"}, "data_format"),
        (ACSConv3D, {"filters": 4, "kernel_size": (3, 3, 3)}, r"2 .*kernel_size"),
        (ACSConv3D, {"filters": 4, "kernel_size": 3, "groups": 2}, "4 filters.*2 groups"),
        (ACSConv3D, {"filters": 4, "kernel_size": 3, "strides": 2, "dilation_rate": 2}, "strides.*dilation"),
    ],
)
def test_wrong_settings_are_refused_by_name(kind, arguments, named):
    with pytest.raises(ValueError, match=named):
        kind(**arguments)


@pytest.mark.parametrize(
    ("layer", "shape", "named"),
    [
        (ACSConv3D(4, 3), (2, 5, 7, 6), r"\[B, D, H, W, C\].*\(2, 5, 7, 6\)"),
        (ACSConv3D(4, 3), (2, 2, 7, 8, 6), r"\(3, 3, 3\).*\(2, 7, 8\)"),
        (ACSConv3D(9, 3, groups=3), (2, 5, 7, 8, 4), "4 .*channels.*3 groups"),
        (DepthwiseConv3D(3), (2, 5, 7, 8, None), "channels.*None"),
    ],
)
def test_an_input_of_the_wrong_shape_is_refused(layer, shape, named):
    with pytest.raises(ValueError, match=named):
        layer.build(shape)
