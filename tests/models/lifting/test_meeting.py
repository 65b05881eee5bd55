"""Branches that meet again: with as many slices, rows and columns as each other, or refused in words."""

import keras
import numpy as np
import pytest
from keras import layers

from voxlift.models.lifting import LiftError, plan_lift, verify_lift


def _unet(up):
    image = keras.Input((16, 12, 2))
    fine = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    middle = layers.Conv2D(6, 3, padding="same", activation="relu")(layers.MaxPooling2D(2)(fine))
    coarse = layers.Conv2D(8, 3, padding="same")(layers.AveragePooling2D(2)(middle))
    x = layers.Concatenate()([up()(coarse), middle])
    x = layers.Concatenate()([up()(layers.Conv2D(6, 3, padding="same")(x)), fine])
    return keras.Model(image, layers.Conv2D(2, 1)(x))


WAYS_UP = {
    "transposed 2": lambda: layers.Conv2DTranspose(6, 2, strides=2),
    "transposed 3": lambda: layers.Conv2DTranspose(6, 3, strides=2, padding="same"),
    "transposed 3, padded": lambda: layers.Conv2DTranspose(6, 3, 2, padding="same", output_padding=1),
    "bilinear": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
}


@pytest.mark.parametrize("spacing", [(9, 1, 1), (5, 1, 1), (2, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("way", WAYS_UP)
def test_the_way_back_meets_the_way_there_however_coarse_depth_is(way, spacing):
    plan = plan_lift(_unet(WAYS_UP[way]), depth=8, depth_policy="spacing", spacing=spacing)
    assert plan.build().output_shape == (None, 8, 16, 12, 2)
    proof = verify_lift(plan, settle=True)
    assert proof.is_proved, str(proof)


def test_a_size_that_the_strides_do_not_divide_is_refused_before_anything_is_built():
    network = _unet(WAYS_UP["transposed 3"])
    plan_lift(network, input_shape=(8, 20, 12))
    with pytest.raises(LiftError, match=r"'concatenate.*' .* meet here with 8 and 9 rows\. .*input_shape"):
        plan_lift(network, input_shape=(8, 18, 12))
    with pytest.raises(LiftError, match=r"meet here with 4 and 5 columns"):
        plan_lift(network, input_shape=(8, 16, 10))


def test_rows_of_unlike_size_may_be_joined_along_their_own_axis():
    image = keras.Input((6, 8, 2))
    x = layers.Concatenate(axis=1)([image, layers.Cropping2D(((1, 2), (0, 0)))(image)])
    network = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    assert verify_lift(plan_lift(network, depth=4), settle=True).is_proved


def test_a_constant_of_the_planes_size_keeps_that_size():
    image = keras.Input((6, 8, 2))
    weights = np.random.default_rng(0).normal(size=(6, 8, 1)).astype("float32")
    network = keras.Model(image, layers.GlobalAveragePooling2D()(image * weights))
    assert verify_lift(plan_lift(network, depth=4), settle=True).is_proved
    with pytest.raises(
        LiftError, match=r"constant of shape \(6, 8, 1\) does not fit .*\(None, 4, 6, 10, 2\)"
    ):
        plan_lift(network, input_shape=(4, 6, 10))


@pytest.mark.parametrize("kind", [layers.Conv2D, layers.Conv2DTranspose])
def test_a_depth_stride_of_its_own_and_dilation_exclude_each_other(kind):
    image = keras.Input((8, 8, 2))
    network = keras.Model(image, kind(3, 3, dilation_rate=2, padding="same", name="wide")(image))
    with pytest.raises(LiftError, match=r"strides \(2, 1, 1\) and dilation .* Give this layer"):
        plan_lift(network, depth=8, depth_policy={"stride": 2})
    assert verify_lift(plan_lift(network, depth=8), settle=True).is_proved
