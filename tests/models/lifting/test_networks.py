"""Networks of unusual architecture: each lifts, proves itself under every policy, and loads again."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from lifts import prove
from voxlift.models.lifting import plan_lift, verify_lift


def _multi_input():
    one, two = keras.Input((12, 16, 1), name="t1"), keras.Input((12, 16, 2), name="flair")
    age = keras.Input((5,), name="age")
    x = layers.Concatenate(axis=3)(
        [layers.Conv2D(4, 3, padding="same")(one), layers.Conv2D(4, 5, padding="same")(two)]
    )
    x = layers.ReLU()(layers.BatchNormalization(axis=3)(x))
    gate = layers.Dense(8, activation="sigmoid")(layers.Dense(4, activation="tanh")(age))
    x = x * ops.reshape(gate, (-1, 1, 1, 8))
    features = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), gate])
    outputs = {
        "label": layers.Dense(2, activation="softmax")(features),
        "score": layers.GlobalMaxPooling2D()(x),
    }
    return keras.Model({"t1": one, "flair": two, "age": age}, outputs)


def _attention_gates():
    image = keras.Input((16, 16, 1))
    one = _block(image, 4)
    two = _block(layers.MaxPooling2D(2)(one), 8)
    three = _block(layers.MaxPooling2D(2)(two), 8)
    x = layers.Concatenate()([layers.Conv2DTranspose(8, 2, strides=2)(three), _gate(two, three)])
    x = _block(x, 8)
    x = layers.Concatenate()([layers.Conv2DTranspose(4, 3, strides=2, padding="same")(x), _gate(one, x)])
    mask = layers.Conv2D(2, 1, activation="softmax", name="mask")(x)
    return keras.Model(image, [mask, layers.Dense(2, name="label")(layers.GlobalAveragePooling2D()(three))])


def _block(x, filters):
    return layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(x)))


def _gate(skip, coarse):
    seen = layers.Conv2D(4, 2, strides=2, padding="same", use_bias=False)(skip)
    seen = layers.ReLU()(layers.Add()([seen, layers.Conv2D(4, 1)(coarse)]))
    seen = layers.Conv2D(1, 1, activation="sigmoid")(seen)
    return layers.Multiply()([skip, layers.UpSampling2D(2, interpolation="bilinear")(seen)])


def _atrous_pyramid():
    image = keras.Input((16, 16, 2))
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(image)
    branches = [layers.Conv2D(3, 3, dilation_rate=rate, padding="same")(x) for rate in (1, 2, 3)]
    whole = layers.Conv2D(3, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    whole = layers.UpSampling2D(8, interpolation="bilinear")(whole)
    x = layers.Conv2D(4, 1)(layers.Concatenate()([*branches, whole]))
    return keras.Model(image, layers.UpSampling2D(2, interpolation="bilinear")(x))


def _shuffled_channels():
    image = keras.Input((8, 10, 8))
    x = layers.Conv2D(8, 3, groups=2, padding="same")(image)
    x = layers.Reshape((8, 10, 8))(layers.Permute((1, 2, 4, 3))(layers.Reshape((8, 10, 2, 4))(x)))
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = ops.reshape(ops.transpose(ops.reshape(x, (-1, 8, 10, 4, 2)), (0, 1, 2, 4, 3)), (-1, 8, 10, 8))
    return keras.Model(image, layers.GlobalAveragePooling2D()(x))


def _spatial_attention():
    image = keras.Input((10, 12, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(image)
    seen = ops.concatenate([ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=3, keepdims=True)], axis=3)
    x = x * layers.Conv2D(1, 7, padding="same", activation="sigmoid")(seen)
    x = ops.where(x > 0.1, x, 0.1 * x)
    return keras.Model(image, ops.concatenate([ops.max(x, axis=[-2, -3]), ops.std(x, axis=(2, 1))], axis=-1))


def _factorised():
    image = keras.Input((14, 16, 2))
    x = layers.Conv2D(4, (1, 7), padding="same")(image)
    x = layers.Conv2D(4, (7, 1), padding="same", activation="relu")(x)
    x = layers.Conv2D(4, (3, 5), strides=2)(x)
    pools = [layers.AveragePooling2D(3, 1, "same")(x), layers.MaxPooling2D((3, 1), 1, "same")(x)]
    return keras.Model(image, layers.GlobalAveragePooling2D()(layers.Concatenate(axis=3)([x, *pools])))


def _metadata_as_tokens():
    image, words = keras.Input((8, 8, 3)), keras.Input((7,), dtype="int32")
    encoded = layers.LSTM(4)(layers.Embedding(10, 3)(words))
    x = layers.Conv2D(5, 3, padding="same")(image)
    x = x * layers.Dense(5, activation="sigmoid")(encoded)[:, None, None, :]
    return keras.Model(
        [image, words], layers.Dense(2)(layers.Concatenate()([layers.GlobalMaxPooling2D()(x), encoded]))
    )


def _augmented():
    image = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255.0, offset=-0.5)(layers.RandomRotation(0.1)(layers.RandomFlip()(image)))
    x = layers.Conv2D(4, 4, strides=2, padding="same")(layers.GaussianNoise(0.1)(x))
    x = layers.UnitNormalization(axis=-1)(layers.Conv2DTranspose(4, 4, strides=2, padding="same")(x))
    return keras.Model(image, layers.Softmax()(layers.Dense(2)(layers.Flatten()(x))))


def _patches():
    image = keras.Input((21, 14, 3))
    x = layers.LayerNormalization()(layers.Activation("gelu")(layers.Conv2D(6, 7, strides=7)(image)))
    mixed = layers.GroupNormalization(2, axis=3)(layers.DepthwiseConv2D(9, padding="same")(x))
    return keras.Model(
        image, layers.GlobalAveragePooling2D()(layers.Dense(6, "silu")(layers.Add()([x, mixed])))
    )


def _shared_over_scales():
    image = keras.Input((16, 16, 2))
    conv, norm = layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization()
    scales = [image, layers.AveragePooling2D(2)(image), layers.AveragePooling2D(4)(image)]
    pooled = [layers.GlobalAveragePooling2D()(norm(conv(scale))) for scale in scales]
    return keras.Model(image, layers.Average()(pooled))


NETWORKS = (
    _multi_input, _attention_gates, _atrous_pyramid, _shuffled_channels, _spatial_attention, _factorised,
    _metadata_as_tokens, _augmented, _patches, _shared_over_scales,
)  # fmt: skip


@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__[1:])
def test_an_unusual_network_proves_itself_and_loads_again(build, tmp_path):
    for policy in ("isotropic", "preserve", "slicewise"):
        lifted = prove(build(), policy, depth=16)
    lifted.save(tmp_path / "lifted.keras")
    loaded = keras.saving.load_model(tmp_path / "lifted.keras")
    random = np.random.default_rng(0)
    volumes = [random.uniform(size=(1, *tensor.shape[1:])).astype(tensor.dtype) for tensor in lifted.inputs]
    is_named = isinstance(lifted.input, dict)
    several = dict(zip(sorted(lifted.input), volumes, strict=True)) if is_named else volumes
    inputs = several if len(volumes) > 1 else volumes[0]
    outputs = [keras.tree.flatten(model(inputs)) for model in (lifted, loaded)]
    for one, other in zip(*outputs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("policy", ["isotropic", "preserve", "slicewise"])
def test_a_nested_network_that_is_used_at_two_sizes(policy):
    inner = keras.Input((None, None, 4))
    backbone = keras.Model(inner, layers.Conv2D(5, 3, padding="same")(inner), name="backbone")
    pool = layers.GlobalAveragePooling2D()
    image = keras.Input((10, 12, 4))
    both = layers.Concatenate()([pool(backbone(image)), pool(backbone(layers.AveragePooling2D(2)(image)))])
    lifted = prove(keras.Model(image, layers.Dense(2)(both)), policy)
    depth = None if policy == "isotropic" else 8
    assert lifted.get_layer("backbone").input_shape == (None, depth, None, None, 4)


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
    assert verify_lift(plan, random_weights=True).difference < 1e-5
    lifted = plan.build()
    assert [layer.name for layer in lifted.get_layer("outer").get_layer("middle").layers][-2] == "inner"
    assert sum(isinstance(layer, layers.Conv3D) for layer in lifted.layers) == 1
    assert set(lifted.output) == {"label", "map"}
