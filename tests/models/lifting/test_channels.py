"""Volumes with other channels than the 2D network's images, through all that may stand before its stem."""

import keras
import numpy as np
import pytest
from keras import layers

from voxlift.models.lifting import LiftError, plan_lift, verify_lift

BEFORE = {
    "rescaling": lambda: layers.Rescaling(1 / 255),
    "padding": lambda: layers.ZeroPadding2D(((0, 1), (2, 1))),
    "cropping": lambda: layers.Cropping2D(1),
    "augmentation": layers.RandomFlip,
    "a pool": lambda: layers.MaxPooling2D(2),
}


def _network(*before, dtype="float32", size=(10, 12)):
    image = x = keras.Input((*size, 3), dtype=dtype)
    for layer in before:
        x = layer(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, strides=2, name="stem")(x))
    return keras.Model(image, layers.Dense(5, name="head")(x))


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("name", BEFORE)
def test_layers_before_the_stem_take_any_channels(name, channels):
    plan = plan_lift(_network(BEFORE[name]()), depth=6, depth_policy="preserve", channels=channels)
    assert plan.build().input_shape == (None, 6, 10, 12, channels)
    assert verify_lift(plan, settle=True).is_proved


def test_images_of_whole_numbers_are_probed_with_whole_numbers():
    plan = plan_lift(_network(layers.Rescaling(1 / 255), dtype="uint8"), depth=6, filters=0.5, channels=1)
    assert verify_lift(plan, settle=True).is_proved


def test_each_image_of_several_gets_its_own_channels_back():
    one, three = keras.Input((10, 12, 1), name="t1"), keras.Input((10, 12, 3), name="rgb")
    norm = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0])
    x = layers.Concatenate()([layers.Conv2D(4, 3)(one), layers.Conv2D(4, 3)(norm(three))])
    network = keras.Model([one, three], layers.GlobalAveragePooling2D()(x))
    plan = plan_lift(network, depth=6, channels=1)
    lifted = plan.build()
    assert [tuple(tensor.shape) for tensor in lifted.inputs] == [(None, 6, 10, 12, 1)] * 2
    assert verify_lift(plan, settle=True).is_proved
    grey = np.random.default_rng(0).normal(size=(2, 10, 12, 1)).astype("float32")
    volume = np.repeat(grey[:, None], 6, axis=1)
    expected = np.array(network([grey, np.repeat(grey, 3, axis=-1)]))
    np.testing.assert_allclose(np.array(lifted([volume, volume])), expected, atol=1e-5)


def test_a_stem_that_is_used_again_behind_itself_is_refused():
    image = keras.Input((10, 12, 3))
    stem = layers.Conv2D(3, 3, padding="same", name="stem")
    network = keras.Model(image, layers.GlobalAveragePooling2D()(stem(stem(image))))
    with pytest.raises(LiftError, match="it is shared, and its calls read 1 and 3 channels"):
        plan_lift(network, depth=6, channels=1)
    assert verify_lift(plan_lift(network, depth=6), settle=True).is_proved


def test_a_new_head_behind_fewer_filters_is_counted_as_it_is_built():
    plan = plan_lift(_network(), depth=6, filters=0.5, classes=3)
    lifted = plan.build()
    assert sum(row["params_3d"] for row in plan.rows()) == lifted.count_params()
    assert lifted.get_layer("head").kernel.shape == (2, 3)
