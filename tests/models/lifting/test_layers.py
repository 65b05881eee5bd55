"""Every layer lifts exactly under every policy, or is reported as unsupported."""

import re
from itertools import product

import keras
import numpy as np
import pytest
from keras import layers, ops

from lifts import image_network, lift_problems, prove
from voxlift.models.lifting import plan_lift, to_3d, verify_lift

POLICIES = ("isotropic", "preserve", "slicewise")
EXACT = 1e-12

CONVOLUTIONS = {
    "wide": lambda: layers.Conv2D(5, (1, 7), padding="same"),
    "tall": lambda: layers.Conv2D(5, (7, 1), padding="same"),
    "even": lambda: layers.Conv2D(5, 4, padding="same"),
    "even strided": lambda: layers.Conv2D(5, 2, strides=2),
    "dilated": lambda: layers.Conv2D(5, 3, dilation_rate=2, padding="same"),
    "even dilated": lambda: layers.Conv2D(5, 2, dilation_rate=2, padding="same"),
    "grouped": lambda: layers.Conv2D(6, 3, groups=2, strides=2, padding="same"),
    "one group per channel": lambda: layers.Conv2D(8, 3, groups=4, padding="same", use_bias=False),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, strides=2, padding="same"),
    "separable": lambda: layers.SeparableConv2D(5, 3, depth_multiplier=2),
    "valid": lambda: layers.Conv2D(5, 3, activation="tanh"),
    "transposed": lambda: layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
    "transposed 5/2": lambda: layers.Conv2DTranspose(5, 5, strides=2, padding="same"),
    "transposed 2/2 valid": lambda: layers.Conv2DTranspose(5, 2, strides=2),
    "transposed with gaps": lambda: layers.Conv2DTranspose(5, 1, strides=2, padding="same"),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_exact_and_keeps_its_weights_in_every_scheme(name):
    for policy in POLICIES:
        prove(image_network(CONVOLUTIONS[name]()), policy, depth=9, tolerance=EXACT)
    for init in ("mean", "acs", "random"):
        prove(image_network(CONVOLUTIONS[name]()), depth=9, tolerance=EXACT, init=init)


@keras.saving.register_keras_serializable(package="tests")
class _SumOfNorms(keras.regularizers.Regularizer):
    def __init__(self, axis):
        self.axis = axis

    def __call__(self, weight):
        return ops.sum(ops.sqrt(ops.sum(ops.square(weight), axis=self.axis)))

    def get_config(self):
        return {"axis": self.axis}


CONSTRAINED = {
    "kernel": lambda **of: layers.Conv2D(4, 3, **of),
    "kernel in groups": lambda **of: layers.Conv2D(4, 3, groups=2, **of),
    "kernel with one group per channel": lambda **of: layers.Conv2D(8, 3, groups=4, **of),
    "kernel, transposed": lambda **of: layers.Conv2DTranspose(3, 3, padding="same", **of),
    "depthwise": lambda **of: layers.DepthwiseConv2D(3, depth_multiplier=2, **of),
    "depthwise, separable": lambda **of: layers.SeparableConv2D(5, 3, **of),
    "pointwise": lambda **of: layers.SeparableConv2D(5, 3, **of),
}
AXES = (0, 2, -1, None, [0, 1], [0, 1, 2], [-4, -3, -2], (-4, 1, 3))


@pytest.mark.parametrize("name", CONSTRAINED)
def test_a_constraint_and_a_regularizer_follow_their_kernel(name):
    weight = re.match("[a-z]+", name).group()
    place = 1 if weight == "pointwise" else 0
    for axis, init in product(AXES, ("centre", "acs")):
        settings = {
            f"{weight}_constraint": keras.constraints.MaxNorm(0.1, axis=axis),
            f"{weight}_regularizer": _SumOfNorms(axis),
        }
        network = image_network(CONSTRAINED[name](**settings))
        kernel = network.layers[1].weights[place]
        kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
        lifted = plan_lift(network, depth=8, init=init).build()
        kernel_3d = lifted.layers[1].weights[place]
        np.testing.assert_allclose(kernel_3d.regularizer(kernel_3d), kernel.regularizer(kernel), rtol=1e-5)
        kernel.assign(kernel.constraint(kernel))
        expected = plan_lift(network, depth=8, init=init).build().layers[1].weights[place]
        np.testing.assert_allclose(kernel_3d.constraint(kernel_3d), expected, atol=1e-6)


def test_a_constraint_on_a_whole_filter_holds_all_its_slices():
    for name, weight in (("kernel", "kernel"), ("depthwise", "depthwise")):
        constraint = keras.constraints.UnitNorm(axis=[-4, -3, -2] if name == "kernel" else [-4, -3])
        layer = CONSTRAINED[name](**{f"{weight}_constraint": constraint})
        kernel = plan_lift(image_network(layer), depth=8).build().layers[1].weights[0]
        drawn = np.random.default_rng(0).normal(size=kernel.shape).astype("float32")
        held = np.asarray(kernel.constraint(drawn)) ** 2
        sums = held.sum((0, 1, 2, 3) if name == "kernel" else (0, 1, 2))
        np.testing.assert_allclose(sums, 1, rtol=1e-4)


def test_a_constraint_on_slopes_follows_their_axes():
    layer = layers.PReLU(shared_axes=[1, 2], alpha_constraint=keras.constraints.MaxNorm(0.1, axis=[0, -2]))
    layer_3d = plan_lift(image_network(layer), depth=8).build().layers[1]
    held = np.asarray(layer_3d.alpha.constraint(np.ones(layer_3d.alpha.shape, "float32")))
    np.testing.assert_allclose(held, 0.1, rtol=1e-5)


@pytest.mark.parametrize("pool", [layers.MaxPooling2D, layers.AveragePooling2D])
def test_a_pool_is_exact_with_every_window_and_padding(pool):
    windows = [(2, None), (3, 2), ((2, 3), (1, 2))]
    for (size, strides), padding, policy in product(windows, ("same", "valid"), POLICIES):
        network = image_network(pool(size, strides=strides, padding=padding))
        prove(network, policy, depth=9, tolerance=EXACT)


def test_asymmetric_padding_follows_the_parity_of_depth():
    def body(x):
        x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
        return layers.DepthwiseConv2D(3, strides=2, padding="valid")(x)

    for policy, depth in product(("isotropic", "preserve"), (7, 8)):
        lifted = prove(image_network(body), policy, depth=depth, tolerance=EXACT)
        assert lifted.output_shape[1] == (depth if policy == "preserve" else -(-depth // 2))


@pytest.mark.parametrize("pool", [layers.MaxPooling2D, layers.AveragePooling2D])
def test_zero_padding_before_a_pool_repeats_slices_where_zeros_would_change_it(pool, tmp_path):
    def body(x, activation):
        x = layers.Activation(activation)(layers.Conv2D(3, 3, padding="same")(x))
        x = layers.ZeroPadding2D(((0, 1), (2, 1)))(x)
        both = [pool(2, strides=1, name="pool")(x), layers.Conv2D(3, 2, name="conv")(x)]
        pooled = pool(3, strides=2)(layers.ZeroPadding2D(1)(layers.Concatenate()(both)))
        return layers.Conv2D(2, 1)(pooled)

    for depth in (7, 8):
        lifted = prove(image_network(lambda x: body(x, "tanh")), depth=depth, tolerance=EXACT)
    assert lifted.get_layer("pool_repeat_edges").output.shape[1] == depth + 1
    volume = np.random.default_rng(0).normal(size=(2, 8, 10, 12, 4)).astype("float32")
    inner = keras.Model(lifted.input, [lifted.get_layer(name).output for name in ("pool", "conv")])
    pooled = np.asarray(inner(volume)[0])
    assert np.abs(pooled[:, -1] - pooled[:, -2]).max() > 1e-3  # the last window reads the last slice alone
    lifted.save(tmp_path / "lifted.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "lifted.keras")(volume), lifted(volume))
    preserved = plan_lift(image_network(lambda x: body(x, "tanh")), depth=8, depth_policy="preserve").build()
    assert not any("repeat_edges" in layer.name for layer in preserved.layers)


def test_zero_padding_before_a_maximum_of_nonnegative_values_stays():
    def body(x):
        x = layers.ReLU()(layers.Conv2D(3, 3, padding="same")(x))
        return layers.MaxPooling2D(3, strides=2, name="pool")(layers.ZeroPadding2D(1)(x))

    lifted = prove(image_network(body))
    assert not any("repeat_edges" in layer.name for layer in lifted.layers)


def test_padding_without_a_window_is_inexact_and_no_other_layer_is():
    network = image_network(lambda x: layers.GlobalAveragePooling2D()(layers.ZeroPadding2D(1, name="pad")(x)))
    plan = plan_lift(network, depth=8)
    assert verify_lift(plan, random_weights=True).verdict == "not exact by plan"
    assert list(plan.inexact) == ["pad"]


def test_axes_written_from_the_front_stay_the_channels():
    def body(x):
        x = layers.Concatenate(axis=3)([layers.BatchNormalization(axis=3)(x), x])
        x = layers.LayerNormalization(axis=3)(layers.PReLU(shared_axes=[1, 2])(x))
        x = layers.Softmax(axis=3)(layers.GroupNormalization(4, axis=3)(x))
        return layers.Concatenate(axis=1)([x, x])

    assert prove(image_network(body), depth=9).output_shape == (None, 9, 20, 12, 8)


def test_squeeze_and_excite_scales_whole_volumes():
    def body(x):
        weights = layers.Reshape((1, 1, 4))(layers.GlobalAveragePooling2D()(x))
        weights = layers.Conv2D(2, 1, activation="relu")(weights)
        return layers.Multiply()([x, layers.Conv2D(4, 1, activation="sigmoid")(weights)])

    assert prove(image_network(body), depth=9).output_shape == (None, 9, 10, 12, 4)


def test_cropping_and_upsampling_are_exact_and_augmentation_is_left_out():
    def body(x):
        x = layers.RandomFlip(name="flip")(layers.Rescaling(0.5, offset=-1)(x))
        x = layers.Cropping2D(((1, 0), (0, 2)))(layers.UpSampling2D(2, interpolation="bilinear")(x))
        return layers.UpSampling2D((2, 1))(layers.SpatialDropout2D(0.2)(x))

    lifted = prove(image_network(body), depth=5)
    assert "flip" not in {layer.name for layer in lifted.layers}


@pytest.mark.parametrize("kind", [layers.Dropout, layers.AlphaDropout])
def test_dropout_of_whole_planes_drops_whole_volumes(kind):
    for shape_2d, shape in (
        ((None, 1, 1, 1), (None, 1, 1, 1, 1)),
        ((None, 1, 1, None), (None, 1, 1, 1, None)),
        ((None, 10, 12, 1), (None, None, None, None, 1)),
    ):
        layer = prove(image_network(kind(0.5, noise_shape=shape_2d, seed=1, name="drop"))).get_layer("drop")
        assert tuple(layer.noise_shape) == shape
        # As many volumes as slices: a mask with one axis too few would fit, and drop slices of all volumes.
        outputs = np.asarray(layer(np.ones((8, 8, 10, 12, 4), "float32"), training=True))
        whole = tuple(axis for axis, size in enumerate(shape) if size == 1)
        assert np.ptp(outputs, axis=whole).max() == 0
        assert len(np.unique(outputs[:, 0, 0, 0, 0])) == 2


@keras.saving.register_keras_serializable(package="tests")
def _doubled(x):
    return 2 * x


@pytest.mark.parametrize("activation", [_doubled, keras.activations.elu, "swish"])
def test_an_activation_function_is_kept(activation):
    prove(
        image_network(lambda x: layers.Conv2D(4, 3, activation=activation)(layers.Activation(activation)(x)))
    )


# TensorFlow computes no `same` with even taps and output_padding=0, in 2D neither.
OUTPUT_PADDINGS = [
    *product(("same", "valid"), (1,), (2, 3, 4)), *product(("valid",), (None,), (2, 3, 4)), ("same", 0, 3),
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
def test_the_plan_knows_the_output_padding_of_a_transposed_convolution(policy):
    for padding, extra, kernel in OUTPUT_PADDINGS:
        layer = layers.Conv2DTranspose(4, kernel, 2, padding=padding, output_padding=extra, name="up")
        plan = plan_lift(image_network(layer), depth=8, depth_policy=policy)
        is_inexact = bool(policy == "isotropic" and padding == "valid" and (kernel > 2 or extra))
        assert bool(plan.inexact) == is_inexact
        verdict = verify_lift(plan, random_weights=True).verdict
        assert verdict == ("not exact by plan" if is_inexact else "proved")
        depth = plan.rows()[-1]["shape_3d"][1]
        assert depth == (8 if policy != "isotropic" else layer.compute_output_shape((1, 8, 8, 1))[1])


def test_a_normalization_with_one_mean_for_all_values_keeps_it():
    normalization = layers.Normalization(axis=None)
    normalization.adapt(np.random.default_rng(0).normal(40, 20, size=(9, 10, 12, 4)).astype("float32"))
    lifted = prove(image_network(normalization))
    np.testing.assert_array_equal(np.ravel(lifted.layers[1].mean), np.ravel(normalization.mean))


def test_mixed_precision_is_kept_layer_by_layer_and_the_head_is_float32():
    def body(x):
        x = layers.Conv2D(3, 3, dtype="mixed_bfloat16", name="conv")(x)
        x = layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
        return layers.Dense(2, activation="softmax", dtype="mixed_bfloat16", name="head")(x)

    lifted = to_3d(image_network(body), depth=5)
    assert lifted.get_layer("conv").dtype_policy.name == "mixed_bfloat16"
    assert lifted.get_layer("pool").dtype_policy.name == "float32"
    assert lifted.get_layer("head").compute_dtype == "float32"


class _Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


UNSUPPORTED = {
    "noise_shape": lambda: layers.Dropout(0.5, noise_shape=(1, 4)),
    "channels_last": lambda: layers.Conv2D(2, 3, data_format="channels_first"),
    "inference": layers.AutoContrast,
    "shared_axes": layers.PReLU,
    "UpSampling2D": lambda: layers.Resizing(5, 6),
    "bilinear": lambda: layers.UpSampling2D(2, interpolation="bicubic"),
    "[1]": lambda: layers.LayerNormalization(axis=1),
    "Functional": _Subclassed,
}


@pytest.mark.parametrize("word", UNSUPPORTED)
def test_an_unsupported_setting_is_named_with_the_fix(word):
    layer = UNSUPPORTED[word]()
    (problem,) = lift_problems(image_network(layer, (6, 8, 3)), depth=8)
    assert (problem.kind, problem.layer) == (type(layer).__name__, layer.name)
    assert word in f"{problem.reason} {problem.fix}"


def test_a_subclassed_model_is_reported():
    (problem,) = lift_problems(_Subclassed(), depth=4)
    assert "Functional" in problem.fix


def test_weights_that_are_not_those_of_the_class_are_reported():
    network = image_network(layers.Conv2D(4, 3, name="conv"))
    network.get_layer("conv").enable_lora(2)
    (problem,) = lift_problems(network, depth=8)
    assert (problem.kind, problem.layer) == ("Conv2D", "conv")
    assert "enable_lora" in problem.fix


def test_depth_stride_and_dilation_exclude_each_other():
    for kind in (layers.Conv2D, layers.Conv2DTranspose):
        network = image_network(kind(3, 3, dilation_rate=2, padding="same"), (8, 6, 2))
        (problem,) = lift_problems(network, depth=8, depth_policy={"stride": 2})
        assert "(2, 1, 1)" in problem.reason
        # In float32: TensorFlow has no dilated transposed convolution in float64.
        assert verify_lift(plan_lift(network, depth=8), random_weights=True, precision="float32").is_proved


def test_neighbouring_slices_are_connected_unless_slicewise():
    network = image_network(layers.Conv2D(3, 3, padding="same"))
    volume = np.random.default_rng(0).normal(size=(1, 7, 10, 12, 4)).astype("float32")
    moved = volume.copy()
    moved[:, 3] += 1.0
    changed = {}
    for policy in POLICIES:
        lifted = to_3d(network, depth=7, depth_policy=policy, init="mean")
        change = np.abs(np.array(lifted(moved)) - np.array(lifted(volume))).max(axis=(0, 2, 3, 4))
        changed[policy] = [index for index, value in enumerate(change) if value > 1e-4]
    assert changed == {"isotropic": [2, 3, 4], "preserve": [2, 3, 4], "slicewise": [3]}
