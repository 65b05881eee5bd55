"""The convolution of few voxels equals the layer of Keras, whichever kernels it uses."""

from itertools import product

import keras
import numpy as np
import pytest
from keras import ops

from arrays import draw
from voxlift.models.layers import FewPositionsConv3D, few_positions
from voxlift.models.layers.few_positions import benefits_from_few_positions

TOLERANCE = {"float32": 2e-5, "bfloat16": 5e-2, "float16": 4e-3}
SHAPES = [  # input, kernel, strides
    ((3, 2, 2, 2, 4), 3, 1),
    ((2, 3, 2, 1, 4), 3, 2),
    ((2, 2, 5, 7, 3), 3, 1),
    ((2, 4, 3, 2, 3), (5, 3, 2), (1, 2, 1)),
    ((2, 2, 3, 4, 3), (2, 1, 3), 1),
]


@pytest.fixture(name="few", params=[True, False])
def few_fixture(request, monkeypatch):
    """Use matrix products for outputs and gradients, or only where a gradient would be unsafe."""
    monkeypatch.setattr(few_positions, "MANY_WEIGHTS", 0 if request.param else 2**30)
    monkeypatch.setattr(few_positions, "FEW_POSITIONS", 10_000)
    monkeypatch.setattr(few_positions, "SAFE_POSITIONS", 10_000 if request.param else 0)


def build_pair(shape, kernel, **settings):
    keras.utils.set_random_seed(3)  # a bound on rounding holds for given weights
    pair = [kind(4, kernel, **settings) for kind in (keras.layers.Conv3D, FewPositionsConv3D)]
    for layer in pair:
        layer.build(shape)
    pair[1].set_weights(pair[0].get_weights())
    return pair


def run(layer, voxels):
    """Outputs and gradients for inputs, kernel and bias, of one traced step."""
    import tensorflow as tf

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(voxels)
            outputs = tf.cast(layer(voxels), "float32")
            weights = np.random.default_rng(2).normal(size=outputs.shape).astype("float32")
            loss = tf.reduce_sum(outputs * weights)
        return outputs, *tape.gradient(loss, [voxels, *(v.value for v in layer.trainable_variables)])

    return [np.asarray(tf.cast(tensor, "float32")) for tensor in step()]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_outputs_and_gradients_equal_keras_in_float32(policy):
    for (shape, kernel, strides), padding in product(SHAPES, ("same", "valid")):
        taps = (kernel,) * 3 if isinstance(kernel, int) else kernel
        if padding == "valid" and any(size < tap for size, tap in zip(shape[1:4], taps, strict=True)):
            sizes = [size + tap - 1 for size, tap in zip(shape[1:4], taps, strict=True)]
            shape = (shape[0], *sizes, shape[4])  # noqa: PLW2901 - large enough for the kernel
        plain, ours = build_pair(shape, kernel, strides=strides, padding=padding, activation="tanh")
        layer = FewPositionsConv3D.from_config(ours.get_config() | {"dtype": policy})
        layer.build(shape)
        layer.set_weights(plain.get_weights())
        voxels = ops.cast(draw(shape, 1), layer.compute_dtype)
        expected = run(plain, ops.cast(voxels, "float32"))
        for value, reference in zip(run(layer, voxels), expected, strict=True):
            difference = np.abs(value - reference).max()
            assert difference <= TOLERANCE[layer.compute_dtype] * np.abs(reference).max(), (shape, padding)


@pytest.mark.parametrize("settings", [{"groups": 2}, {"dilation_rate": 2}, {"padding": "same", "strides": 3}])
@pytest.mark.usefixtures("few")
def test_every_setting_equals_keras(settings):
    plain, ours = build_pair((2, 5, 5, 5, 4), 2, **settings)
    voxels = ops.convert_to_tensor(draw((2, 5, 5, 5, 4)))
    for value, reference in zip(run(ours, voxels), run(plain, voxels), strict=True):
        np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-5)


def test_no_bfloat16_filter_gradient_is_used_on_few_slices():
    import tensorflow as tf

    for shape, few in (((1, 2, 3, 3, 2), True), ((1, 2, 9, 9, 2), False), ((1, 6, 3, 3, 2), None)):
        layer = FewPositionsConv3D(3, 3, padding="same", dtype="mixed_bfloat16")
        layer.build(shape)

        @tf.function
        def gradient(voxels, layer=layer):
            with tf.GradientTape() as tape:
                outputs = layer(voxels)
            return tape.gradient(outputs, layer.kernel.value)

        operations = gradient.get_concrete_function(tf.zeros(shape)).graph.get_operations()
        dtypes = [op.inputs[0].dtype.name for op in operations if op.type == "Conv3DBackpropFilterV2"]
        assert dtypes == {True: [], False: ["float32"], None: ["bfloat16"]}[few]


def test_gradients_on_few_slices_are_finite_whatever_freed_memory_holds():
    voxels = ops.cast(draw((2, 2, 3, 5, 16)), "bfloat16")
    layer = FewPositionsConv3D(16, 3, padding="same", dtype="mixed_bfloat16")
    layer.build(voxels.shape)
    for _ in range(30):
        np.full(200_000, np.nan, "float32").sum()  # leaves NaN behind when it is freed
        assert all(np.isfinite(values).all() for values in run(layer, voxels))


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "expected"),
    [
        ((2, 24, 24), (2, 24, 24), (3, 3, 3, 4, 4), True),  # few slices
        ((1, 24, 24), (1, 24, 24), (3, 3, 3, 4, 4), False),
        ((3, 3, 3), (2, 2, 2), (3, 3, 3, 256, 512), True),
        ((8, 8, 8), (2, 2, 2), (3, 3, 3, 256, 512), True),
        ((8, 8, 8), (2, 2, 2), (3, 3, 3, 16, 16), False),
        ((8, 8, 8), (8, 8, 8), (3, 3, 3, 256, 512), False),
        ((None, 2, 2), (None, 2, 2), (3, 3, 3, 256, 512), False),
    ],
)
def test_the_layer_is_used_where_it_is_faster_or_safer(inputs, outputs, kernel, expected):
    assert benefits_from_few_positions(inputs, outputs, kernel) == expected


def test_unknown_sizes_equal_keras():
    plain, ours = build_pair((None, None, None, None, 4), 3)
    voxels = draw((2, 3, 4, 5, 4))
    model = keras.Sequential([keras.Input((None, None, None, 4)), ours])
    np.testing.assert_allclose(model(voxels), plain(voxels), rtol=1e-4, atol=1e-5)


def test_configuration_is_that_of_the_keras_layer():
    plain, ours = build_pair((1, 3, 3, 3, 3), 3, name="few")
    assert ours.get_config() == plain.get_config()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ours))
    assert isinstance(again, FewPositionsConv3D)
