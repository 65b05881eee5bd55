"""Networks that trip a converter: each lifts exactly, or is refused in words."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from voxlift.models.lifting import (
    LiftError,
    plan_lift,
    register_lift_rule,
    to_3d,
    unregister_lift_rule,
    verify_lift,
)

POLICIES = ["isotropic", "preserve", "slicewise"]


def _network(function, *, shape=(10, 12, 4)):
    image = keras.Input(shape, name="image")
    return keras.Model(image, function(image), name="network")


def _prove(network, policy="isotropic", *, depth=9, tolerance=1e-12, **settings):
    plan = plan_lift(network, depth=depth, depth_policy=policy, **settings)
    proof = verify_lift(plan, settle=True, precision="float64")
    assert not proof.inexact
    assert max(proof.difference, proof.promised_difference) < tolerance
    assert proof.scheme_difference < 1e-6
    lifted = plan.build()
    last = plan.rows()[-1]
    assert last["shape_3d"] == lifted.output_shape
    return lifted


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


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_every_convolution_is_exact(name, policy):
    _prove(_network(CONVOLUTIONS[name]()), policy)


@pytest.mark.parametrize("init", ["mean", "acs", "random"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_every_convolution_keeps_its_weights_in_every_scheme(name, init):
    _prove(_network(CONVOLUTIONS[name]()), init=init)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("pool", [layers.MaxPooling2D, layers.AveragePooling2D])
@pytest.mark.parametrize(("size", "strides"), [(2, None), (3, 2), ((2, 3), (1, 2))])
def test_every_pool_with_every_padding_is_exact(pool, size, strides, padding, policy):
    _prove(_network(pool(size, strides=strides, padding=padding)), policy)


@pytest.mark.parametrize("policy", ["isotropic", "preserve"])
@pytest.mark.parametrize("depth", [7, 8])
def test_asymmetric_padding_follows_the_parity_of_depth(policy, depth):
    def body(x):
        x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
        return layers.DepthwiseConv2D(3, strides=2, padding="valid")(x)

    lifted = _prove(_network(body), policy, depth=depth)
    assert lifted.output_shape[1] == (depth if policy == "preserve" else -(-depth // 2))


def test_zero_padding_before_a_pool_of_negative_values_is_called_inexact():
    def body(x, activation):
        x = layers.Activation(activation)(layers.Conv2D(3, 3, padding="same")(x))
        return layers.MaxPooling2D(3, strides=2, name="pool")(layers.ZeroPadding2D(1)(x))

    signed = plan_lift(_network(lambda x: body(x, "tanh")), depth=8)
    assert list(signed.inexact) == ["pool"]
    assert "zeros" in signed.inexact["pool"]
    assert "pool (isotropic)" in str(signed)
    assert not signed.again(depth_policy="preserve").inexact
    _prove(_network(lambda x: body(x, "relu")))


def test_axes_written_from_the_front_stay_the_channels():
    def body(x):
        x = layers.Concatenate(axis=3)([layers.BatchNormalization(axis=3)(x), x])
        x = layers.LayerNormalization(axis=3)(layers.PReLU(shared_axes=[1, 2])(x))
        x = layers.Softmax(axis=3)(layers.GroupNormalization(4, axis=3)(x))
        return layers.Concatenate(axis=1)([x, x])

    lifted = _prove(_network(body))
    assert lifted.output_shape == (None, 9, 20, 12, 8)


def _squeeze(x):
    weights = layers.GlobalAveragePooling2D()(x)
    weights = layers.Reshape((1, 1, 4))(weights)
    weights = layers.Conv2D(4, 1, activation="sigmoid")(layers.Conv2D(2, 1, activation="relu")(weights))
    return layers.Multiply()([x, weights])


def test_squeeze_and_excite_scales_whole_volumes():
    assert _prove(_network(_squeeze)).output_shape == (None, 9, 10, 12, 4)


def test_cropping_upsampling_and_augmentation():
    def body(x):
        x = layers.RandomFlip(name="flip")(layers.Rescaling(0.5, offset=-1)(x))
        x = layers.Cropping2D(((1, 0), (0, 2)))(layers.UpSampling2D(2, interpolation="bilinear")(x))
        return layers.UpSampling2D((2, 1))(layers.SpatialDropout2D(0.2)(x))

    plan = plan_lift(_network(body), depth=5)
    assert "flip" not in {layer.name for layer in plan.build().layers}
    _prove(_network(body), depth=5)


OPERATIONS = {
    "mean": lambda x: ops.mean(x, axis=(1, 2)),
    "mean, negative axes": lambda x: ops.mean(x, axis=(-3, -2), keepdims=True),
    "channels away": lambda x: ops.max(x, axis=-1, keepdims=True),
    "channels away, positive": lambda x: ops.expand_dims(ops.var(x, axis=3), -1),
    "arithmetic": lambda x: ops.relu(2.0 * x + 1.0) - x * np.ones((1, 1, 4), "float32"),
    "slices": lambda x: x[:, ::2, ::2, 1:3],
    "slices, ellipsis": lambda x: x[..., :2],
    "softmax": lambda x: ops.softmax(x, axis=3),
    "concatenate": lambda x: ops.concatenate([x, x], axis=-1),
    "squeeze and excite": lambda x: x * ops.reshape(ops.mean(x, (1, 2)), (-1, 1, 1, 4)),
    "new axes": lambda x: x * ops.expand_dims(ops.expand_dims(ops.mean(x, (1, 2)), 1), 1),
    "transposed and back": lambda x: ops.transpose(ops.transpose(x, (0, 3, 1, 2)), (0, 2, 3, 1)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_raw_operations_keep_their_axes(name):
    _prove(_network(lambda x: OPERATIONS[name](layers.Conv2D(4, 3)(x))))


@pytest.mark.parametrize(
    "operation",
    [lambda x: ops.mean(x, axis=1), lambda x: x[:, 0], ops.flip],
    ids=["row", "index", "all"],
)
def test_raw_operations_without_meaning_in_3d_are_refused(operation):
    with pytest.raises(LiftError):
        plan_lift(_network(operation), depth=5)


def test_a_sum_over_a_volume_is_called_inexact():
    plan = plan_lift(_network(lambda x: ops.sum(x, axis=(1, 2))), depth=5)
    assert "adds up 5 slices" in next(iter(plan.inexact.values()))


def test_nested_models_three_deep_with_a_shared_layer_two_inputs_and_two_outputs():
    inner = keras.Sequential(
        [keras.Input((None, None, 4)), layers.Conv2D(4, 3, padding="same")], name="inner"
    )
    middle_in = keras.Input((None, None, 4))
    middle = keras.Model(middle_in, layers.ReLU()(inner(middle_in)), name="middle")
    outer_in = keras.Input((10, 12, 4))
    outer = keras.Model(outer_in, layers.Add()([middle(outer_in), outer_in]), name="outer")
    first, second = keras.Input((10, 12, 4), name="first"), keras.Input((10, 12, 4), name="second")
    age = keras.Input((3,), name="age")
    shared = layers.Conv2D(5, 3, name="shared")
    x = layers.Add()([shared(outer(first)), shared(second)])
    x = layers.GlobalAveragePooling2D()(x)
    merged = layers.Concatenate()([x, layers.Dense(3)(age)])
    network = keras.Model(
        [first, second, age],
        {"label": layers.Dense(2, name="head")(merged), "map": shared(first)},
        name="network",
    )
    plan = plan_lift(network, depth=7)
    assert verify_lift(plan, settle=True).difference < 1e-5
    lifted = plan.build()
    assert [layer.name for layer in lifted.get_layer("outer").get_layer("middle").layers][-2] == "inner"
    assert sum(isinstance(layer, layers.Conv3D) for layer in lifted.layers) == 1
    assert set(lifted.output) == {"label", "map"}


def test_subclassed_and_channels_first_networks_are_refused_with_a_way_out():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(LiftError, match="Functional API"):
        plan_lift(Own(), depth=4)
    image = keras.Input((3, 8, 8))
    network = keras.Model(image, layers.Conv2D(2, 3, data_format="channels_first")(image))
    with pytest.raises(LiftError, match="channels_last"):
        plan_lift(network, depth=4)


def test_a_users_own_layer_lifts_by_a_registered_rule():
    @keras.saving.register_keras_serializable(package="test")
    class Twice(layers.Layer):
        def call(self, inputs):
            return inputs * 2

    network = _network(lambda x: layers.Conv2D(2, 3)(Twice()(x)))
    with pytest.raises(LiftError, match="Twice"):
        plan_lift(network, depth=5)
    register_lift_rule(Twice)
    try:
        _prove(network)
    finally:
        unregister_lift_rule(Twice)


def test_mixed_precision_is_kept_layer_by_layer_and_the_head_is_float32():
    def body(x):
        x = layers.Conv2D(3, 3, dtype="mixed_bfloat16", name="conv")(x)
        x = layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
        return layers.Dense(2, activation="softmax", dtype="mixed_bfloat16", name="head")(x)

    lifted = to_3d(_network(body), depth=5)
    assert lifted.get_layer("conv").dtype_policy.name == "mixed_bfloat16"
    assert lifted.get_layer("pool").dtype_policy.name == "float32"
    assert lifted.get_layer("head").compute_dtype == "float32"


@pytest.mark.parametrize("policy", ["isotropic", "preserve"])
def test_neighbouring_slices_see_each_other(policy):
    network = _network(layers.Conv2D(3, 3, padding="same"))
    volume = np.random.default_rng(0).normal(size=(1, 7, 10, 12, 4)).astype("float32")
    moved = volume.copy()
    moved[:, 3] += 1.0
    seen = {}
    for choice in (policy, "slicewise"):
        lifted = to_3d(network, depth=7, depth_policy=choice, init="mean")
        change = np.abs(np.array(lifted(moved)) - np.array(lifted(volume))).max(axis=(0, 2, 3, 4))
        seen[choice] = [index for index, value in enumerate(change) if value > 1e-4]
    assert seen == {policy: [2, 3, 4], "slicewise": [3]}


def test_centre_and_preserve_give_the_mean_of_the_slices_on_any_volume():
    def body(x):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2, padding="same")(x)))
        x = layers.Add()([x, layers.Conv2D(4, 3, padding="same")(layers.MaxPooling2D(2, 1, "same")(x))])
        return layers.GlobalAveragePooling2D()(x)

    network = _network(body)
    volume = np.random.default_rng(0).normal(size=(1, 6, 10, 12, 4)).astype("float32")
    lifted = to_3d(network, depth=6, depth_policy="preserve")
    slices = np.array(network(volume[0])).mean(axis=0)
    np.testing.assert_allclose(np.array(lifted(volume))[0], slices, atol=1e-6)
