"""Branches are merged with equal numbers of slices, rows and columns, or reported as unsupported."""

import keras
import pytest
from keras import layers

from lifts import image_network, lift_problems, prove
from voxlift.models.lifting import plan_lift

UPSAMPLINGS = {
    "transposed 2": lambda: layers.Conv2DTranspose(6, 2, strides=2),
    "transposed 3": lambda: layers.Conv2DTranspose(6, 3, strides=2, padding="same"),
    "transposed 3, padded": lambda: layers.Conv2DTranspose(6, 3, 2, padding="same", output_padding=1),
    "bilinear": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
}


def _unet(upsampling):
    image = keras.Input((16, 12, 2))
    fine = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    middle = layers.Conv2D(6, 3, padding="same", activation="relu")(layers.MaxPooling2D(2)(fine))
    coarse = layers.Conv2D(8, 3, padding="same")(layers.AveragePooling2D(2)(middle))
    x = layers.Concatenate()([upsampling()(coarse), middle])
    x = layers.Concatenate(name="top")([upsampling()(layers.Conv2D(6, 3, padding="same")(x)), fine])
    return keras.Model(image, layers.Conv2D(2, 1)(x))


@pytest.mark.parametrize("name", UPSAMPLINGS)
def test_a_decoder_has_the_depths_of_its_encoder_for_every_spacing(name):
    for spacing in ((9, 1, 1), (5, 1, 1), (2, 1, 1), (1, 1, 1)):
        lifted = prove(_unet(UPSAMPLINGS[name]), "spacing", spacing=spacing)
        assert lifted.output_shape == (None, 8, 16, 12, 2)


def test_a_size_that_the_strides_do_not_divide_is_reported():
    network = _unet(UPSAMPLINGS["transposed 3"])
    plan_lift(network, input_shape=(8, 20, 12))
    for size, numbers in (((8, 18, 12), "8 and 9"), ((8, 16, 10), "4 and 5")):
        problem = lift_problems(network, input_shape=size)[0]
        assert problem.kind == "Concatenate"
        assert numbers in problem.reason
        assert "input_shape" in problem.fix


def test_branches_of_different_depth_are_reported():
    def body(x):
        side = layers.Conv2D(4, 1, name="side")(x)
        return layers.Add(name="sum")([layers.Conv2D(4, 3, padding="same")(x), side])

    policy = {"side": {"kernel": 1, "stride": 2, "pool": 1}, "default": "preserve"}
    (problem,) = lift_problems(image_network(body), depth=4, depth_policy=policy)
    assert problem.layer == "sum"
    assert "2 and 4" in problem.reason


def test_rows_of_different_size_may_be_joined_along_their_own_axis():
    def body(x):
        x = layers.Concatenate(axis=1)([x, layers.Cropping2D(((1, 2), (0, 0)))(x)])
        return layers.GlobalAveragePooling2D()(x)

    prove(image_network(body, (6, 8, 2)), depth=4)
