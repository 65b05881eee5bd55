"""What a lift may change in the 2D network: input channels, filters, classes, logits, size."""

import keras
import numpy as np
import pytest
from keras import layers

from lifts import lift_problems, prove
from voxlift.models.lifting import plan_lift, to_3d, verify_lift

RNG = np.random.default_rng(0)


def _network(*, head=True, channels=3, normalised=False, size=(16, 12)):
    image = keras.Input((*size, channels), name="image")
    x = layers.BatchNormalization(name="first")(image) if normalised else image
    x = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.MaxPooling2D(2, name="pool")(x)
    side = layers.Conv2D(12, 1, name="side")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Conv2D(12, 3, padding="same", name="main")(x)
    x = layers.Concatenate(name="joined")([layers.Add(name="sum")([x, side]), side])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(
        image, layers.Dense(5, activation="softmax", name="head")(x) if head else x, name="network"
    )


def _stem_network(*before, dtype="float32", size=(10, 12)):
    image = x = keras.Input((*size, 3), dtype=dtype)
    for layer in before:
        x = layer(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, strides=2, name="stem")(x))
    return keras.Model(image, layers.Dense(5, name="head")(x))


def test_volumes_of_one_channel_give_what_grey_images_give():
    network = _network()
    lifted = to_3d(network, depth=4, channels=1)
    grey = RNG.normal(size=(2, 16, 12, 1)).astype("float32")
    expected = np.array(network(np.repeat(grey, 3, axis=-1)))
    np.testing.assert_allclose(np.array(lifted(np.repeat(grey[:, None], 4, axis=1))), expected, atol=1e-6)
    kernel = lifted.get_layer("stem").get_weights()[0]
    np.testing.assert_allclose(
        kernel[1], network.get_layer("stem").get_weights()[0].sum(axis=2, keepdims=True), rtol=1e-6
    )


@pytest.mark.parametrize("normalised", [False, True])
def test_a_lift_to_one_channel_proves_itself_also_after_weights_per_channel(normalised):
    lifted = prove(_network(normalised=normalised), depth=4, channels=1)
    assert lifted.input_shape == (None, 4, 16, 12, 1)


def test_two_channels_before_weights_per_channel_are_reported():
    problem = lift_problems(_network(normalised=True), depth=4, channels=2)[0]
    assert (problem.layer, "channels=1" in problem.fix) == ("first", True)


BEFORE = {
    "rescaling": lambda: layers.Rescaling(1 / 255),
    "padding": lambda: layers.ZeroPadding2D(((0, 1), (2, 1))),
    "cropping": lambda: layers.Cropping2D(1),
    "augmentation": layers.RandomFlip,
    "a pool": lambda: layers.MaxPooling2D(2),
}


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_layers_before_the_first_convolution_accept_any_channels(channels):
    for build in BEFORE.values():
        lifted = prove(_stem_network(build()), "preserve", depth=6, channels=channels)
        assert lifted.input_shape == (None, 6, 10, 12, channels)


def test_images_of_integers_are_compared_on_integers():
    prove(_stem_network(layers.Rescaling(1 / 255), dtype="uint8"), depth=6, filters=0.5, channels=1)


def test_each_input_of_several_keeps_its_own_channels_in_2d():
    one, three = keras.Input((10, 12, 1), name="t1"), keras.Input((10, 12, 3), name="rgb")
    norm = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0])
    x = layers.Concatenate()([layers.Conv2D(4, 3)(one), layers.Conv2D(4, 3)(norm(three))])
    network = keras.Model([one, three], layers.GlobalAveragePooling2D()(x))
    lifted = prove(network, depth=6, channels=1)
    assert [tuple(tensor.shape) for tensor in lifted.inputs] == [(None, 6, 10, 12, 1)] * 2
    grey = np.random.default_rng(0).normal(size=(2, 10, 12, 1)).astype("float32")
    volume = np.repeat(grey[:, None], 6, axis=1)
    expected = np.array(network([grey, np.repeat(grey, 3, axis=-1)]))
    np.testing.assert_allclose(np.array(lifted([volume, volume])), expected, atol=1e-5)


def test_a_first_convolution_that_is_used_again_after_itself_is_reported():
    image = keras.Input((10, 12, 3))
    stem = layers.Conv2D(3, 3, padding="same", name="stem")
    network = keras.Model(image, layers.GlobalAveragePooling2D()(stem(stem(image))))
    (problem,) = lift_problems(network, depth=6, channels=1)
    assert (problem.layer, "1 and 3" in problem.reason) == ("stem", True)
    prove(network, depth=6)


def test_half_the_filters_keep_their_weights():
    network = _network()
    network.set_weights([RNG.uniform(0.2, 1.0, weight.shape) for weight in network.get_weights()])
    plan = plan_lift(network, depth=4, filters=0.5)
    lifted = plan.build()
    assert lifted.get_layer("main").filters == lifted.get_layer("side").filters == 6
    stem, main = network.get_layer("stem").get_weights()[0], network.get_layer("main").get_weights()[0]
    np.testing.assert_array_equal(lifted.get_layer("stem").get_weights()[0][1], stem[..., :4])
    np.testing.assert_array_equal(lifted.get_layer("main").get_weights()[0][1], main[:, :, :4, :6])
    head = network.get_layer("head").get_weights()[0]
    kept = [*range(6), *range(12, 18)]
    np.testing.assert_array_equal(lifted.get_layer("head").get_weights()[0], head[kept])
    assert sum(row["params_3d"] for row in plan.rows()) == lifted.count_params()
    assert verify_lift(plan).difference < 1e-5


def test_filters_per_stage_and_their_errors():
    lifted = to_3d(_network(), depth=4, filters=[4, 12])
    assert [lifted.get_layer(name).filters for name in ("stem", "main")] == [4, 12]
    (problem,) = lift_problems(_network(), depth=4, filters=[4, 5, 6])
    assert "3" in problem.reason
    assert "2" in problem.reason
    for factor in (0.0, 2.0):
        (problem,) = lift_problems(_network(), depth=4, filters=factor)
        assert f"{factor:g}" in problem.reason


def test_new_classes_and_logits():
    network = _network()
    lifted = to_3d(network, depth=4, classes=3, logits=True)
    assert lifted.output_shape == (None, 3)
    assert lifted.get_layer("head").activation is keras.activations.linear
    logits = to_3d(network, depth=4, logits=True)
    image = RNG.normal(size=(1, 16, 12, 3)).astype("float32")
    softmax = keras.ops.softmax(logits(np.repeat(image[:, None], 4, axis=1)))
    np.testing.assert_allclose(np.array(softmax), np.array(network(image)), atol=1e-6)
    assert to_3d(_network(head=False), depth=4, classes=3).output_shape == (None, 3)


def test_a_new_head_after_fewer_filters_is_counted_as_it_is_built():
    plan = plan_lift(_stem_network(), depth=6, filters=0.5, classes=3)
    lifted = plan.build()
    assert sum(row["params_3d"] for row in plan.rows()) == lifted.count_params()
    assert lifted.get_layer("head").kernel.shape == (2, 3)


@pytest.mark.parametrize("has_head", [True, False])
def test_a_sequential_network_takes_one_channel_and_new_classes(has_head):
    normalization = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0])
    parts = [keras.Input((10, 12, 3)), normalization, layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    network = keras.Sequential([*parts, layers.Dense(2)] if has_head else parts)
    plan = plan_lift(network, depth=8, channels=1, classes=5)
    assert verify_lift(plan).is_proved
    assert plan.build().output_shape == (None, 5)
    assert plan.build().input_shape == (None, 8, 10, 12, 1)


def test_logits_of_probabilities_that_another_layer_reads_are_reported():
    image = keras.Input((8, 8, 2))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    label = layers.Dense(2, activation="softmax", name="label")(pooled)
    network = keras.Model(image, [label, layers.Dense(1, name="next")(label)])
    (problem,) = lift_problems(network, depth=4, logits=True)
    assert "'label'" in problem.reason
    (problem,) = lift_problems(network, depth=4, classes=3)
    assert "2" in problem.reason
    assert verify_lift(plan_lift(network, depth=4)).is_proved


def test_logits_of_a_map_are_what_its_softmax_reads():
    image = keras.Input((8, 8, 2))
    network = keras.Model(image, layers.Conv2D(3, 1, activation="softmax")(image))
    lifted = to_3d(network, depth=4, logits=True)
    assert lifted.layers[-1].activation is keras.activations.linear


def test_another_size_keeps_the_convolutions():
    lifted = prove(_network(), depth=None, input_shape=(5, 10, 14))
    assert lifted.input_shape == (None, 5, 10, 14, 3)


def test_frozen_layers_stay_frozen():
    network = _network()
    network.get_layer("main").trainable = False
    lifted = to_3d(network, depth=4)
    assert not lifted.get_layer("main").trainable
    assert lifted.get_layer("stem").trainable
