"""Settings of 2D layers that name axes, sizes or parts of a network, and what they mean in 3D."""

from itertools import product

import keras
import numpy as np
import pytest
from keras import layers, ops

from voxlift.models.lifting import LiftError, plan_lift, verify_lift

POLICIES = ["isotropic", "preserve", "slicewise"]


def _network(function, shape=(10, 12, 4)):
    image = keras.Input(shape)
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(function(image))))


def _prove(network, policy="isotropic", **settings):
    plan = plan_lift(network, depth=8, depth_policy=policy, **settings)
    proof = verify_lift(plan, settle=True)
    assert proof.is_proved, str(proof)
    return plan.build()


@pytest.mark.parametrize("kind", [layers.Dropout, layers.AlphaDropout])
@pytest.mark.parametrize(
    ("shape_2d", "shape"),
    [
        ((None, 1, 1, 1), (None, 1, 1, 1, 1)),
        ((None, 1, 1, None), (None, 1, 1, 1, None)),
        ((None, 10, 12, 1), (None, None, None, None, 1)),
    ],
)
def test_dropout_of_whole_planes_drops_whole_volumes(kind, shape_2d, shape):
    lifted = _prove(_network(kind(0.5, noise_shape=shape_2d, seed=1, name="drop")))
    layer = lifted.get_layer("drop")
    assert tuple(layer.noise_shape) == shape
    # As many volumes as slices: a mask with one axis too few would fit, and drop slices of all volumes.
    outputs = np.asarray(layer(np.ones((8, 8, 10, 12, 4), "float32"), training=True))
    whole = tuple(axis for axis, size in enumerate(shape) if size == 1)
    assert np.ptp(outputs, axis=whole).max() == 0
    assert len(np.unique(outputs[:, 0, 0, 0, 0])) == 2


def test_a_dropout_that_names_other_axes_is_refused():
    with pytest.raises(LiftError, match=r"noise_shape \(1, 4\) names other axes than \(None, 10, 12, 4\)"):
        plan_lift(_network(layers.Dropout(0.5, noise_shape=(1, 4))), depth=8)


@keras.saving.register_keras_serializable(package="tests")
def _doubled(x):
    return 2 * x


@pytest.mark.parametrize("activation", [_doubled, keras.activations.elu, "swish"])
def test_activations_of_the_users_own_stay_as_they_are(activation):
    _prove(_network(lambda x: layers.Conv2D(4, 3, activation=activation)(layers.Activation(activation)(x))))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cut", ["rows turned round", "both turned round", "every other row", "thinned out"])
def test_slices_of_a_map_keep_depth_or_follow_height(cut, policy):
    key = {
        "rows turned round": (slice(None), slice(None, None, -1)),
        "both turned round": (slice(None), slice(None, None, -1), slice(None, None, -1)),
        "every other row": (slice(None), slice(None, None, 2)),
        "thinned out": (slice(None), slice(None, None, 2), slice(1, None, 2)),
    }[cut]
    convolution = layers.Conv2D(4, 3, padding="same")
    network = _network(lambda x: convolution(x[key]))
    lifted = _prove(network, policy)
    thins = cut == "thinned out" and policy == "isotropic"
    assert lifted.get_layer(convolution.name).output.shape[1] == (4 if thins else 8)


# TensorFlow computes no `same` with even taps and output_padding=0, in 2D neither.
PADDINGS = [
    *product(("same", "valid"), (1,), (2, 3, 4)), *product(("valid",), (None,), (2, 3, 4)), ("same", 0, 3),
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("padding", "extra", "kernel"), PADDINGS)
def test_output_padding_of_a_transposed_convolution(padding, extra, kernel, policy):
    layer = layers.Conv2DTranspose(4, kernel, strides=2, padding=padding, output_padding=extra, name="up")
    plan = plan_lift(_network(layer), depth=8, depth_policy=policy)
    proof = verify_lift(plan, settle=True)
    is_inexact = bool(policy == "isotropic" and padding == "valid" and (kernel > 2 or extra))
    assert bool(plan.inexact) == is_inexact
    assert proof.verdict == ("not exact by plan" if is_inexact else "proved")
    depth = {row["layer"]: row["shape_3d"][1] for row in plan.rows()}["up"]
    assert depth == (8 if policy != "isotropic" else layer.compute_output_shape((1, 8, 8, 1))[1])


@pytest.mark.parametrize("policy", POLICIES)
def test_channels_are_parted_joined_and_taken_away(policy):
    def body(x):
        parts = ops.reshape(layers.Conv2D(6, 3, padding="same")(x), (-1, 10, 12, 3, 2))
        largest = ops.max(parts, axis=-1)  # maxout
        seen = ops.squeeze(layers.Conv2D(1, 3, padding="same")(largest), axis=-1)
        return layers.Conv2D(4, 3)(largest * ops.expand_dims(ops.sigmoid(seen), -1))

    _prove(_network(body), policy)


def test_a_normalization_with_one_mean_for_all_values():
    normalization = layers.Normalization(axis=None)
    normalization.adapt(np.random.default_rng(0).normal(40, 20, size=(9, 10, 12, 4)).astype("float32"))
    lifted = _prove(_network(normalization))
    np.testing.assert_array_equal(np.ravel(lifted.layers[1].mean), np.ravel(normalization.mean))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_network_inside_that_is_used_at_two_sizes(policy):
    inner = keras.Input((None, None, 4))
    backbone = keras.Model(inner, layers.Conv2D(5, 3, padding="same")(inner), name="backbone")
    pool = layers.GlobalAveragePooling2D()
    image = keras.Input((10, 12, 4))
    both = layers.Concatenate()([pool(backbone(image)), pool(backbone(layers.AveragePooling2D(2)(image)))])
    lifted = _prove(keras.Model(image, layers.Dense(2)(both)), policy)
    depth = None if policy == "isotropic" else 8
    assert lifted.get_layer("backbone").input_shape == (None, depth, None, None, 4)


def test_padding_that_no_window_reads_is_named_and_no_other_layer_is():
    plan = plan_lift(_network(layers.ZeroPadding2D(1, name="pad")), depth=8)
    assert verify_lift(plan, settle=True).verdict == "not exact by plan"
    assert list(plan.inexact) == ["pad"]


@pytest.mark.parametrize("has_head", [True, False])
def test_a_sequential_network_takes_one_channel_and_new_classes(has_head):
    normalization = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0])
    parts = [keras.Input((10, 12, 3)), normalization, layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    network = keras.Sequential([*parts, layers.Dense(2)] if has_head else parts)
    plan = plan_lift(network, depth=8, channels=1, classes=5)
    assert verify_lift(plan).is_proved
    assert plan.build().output_shape == (None, 5)
    assert plan.build().input_shape == (None, 8, 10, 12, 1)


def test_layers_that_change_images_at_inference_are_refused():
    with pytest.raises(LiftError, match=r"AutoContrast .* it changes images at inference too"):
        plan_lift(_network(layers.AutoContrast(), (10, 12, 3)), depth=8)


def test_weights_that_are_not_those_of_the_class_are_refused():
    network = _network(layers.Conv2D(4, 3, name="conv"))
    network.get_layer("conv").enable_lora(2)
    with pytest.raises(LiftError, match=r"Conv2D 'conv' .* low-rank adapters.*enable_lora"):
        plan_lift(network, depth=8)


@pytest.mark.parametrize("shape", [(7,), (8, 10, 12, 1)])
def test_a_network_without_an_image_is_refused(shape):
    inputs = keras.Input(shape)
    network = keras.Model(inputs, layers.Dense(2)(inputs))
    with pytest.raises(LiftError, match=r"expected an image .* among the inputs, received"):
        plan_lift(network, depth=8)
