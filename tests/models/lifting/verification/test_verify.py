"""What a proof promises: it detects a wrong lift, names the layer, and never calls an inexact lift proved."""

import keras
import numpy as np
import pytest
from keras import layers

from voxlift.models.lifting import inflate, plan_lift, verify_lift

IMAGE = (10, 12, 2)


def _network(activation, is_inexact=False):
    """A network whose padding, if it is inexact, is read by another layer than a convolution or pool."""
    image = keras.Input(IMAGE)
    x = layers.Conv2D(3, 3, padding="same", name="first")(image)
    x = layers.Conv2D(3, 3, padding="same", activation=activation, name="second")(x)
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = layers.AveragePooling2D(3)(layers.Activation("tanh")(x)) if is_inexact else x
    x = layers.MaxPooling2D(3, strides=2, name="pool")(x)
    return keras.Model(image, layers.GlobalAveragePooling2D(name="mean")(x), name="network")


def _misplace_tap(monkeypatch):
    def at_the_end(kernel, depth):
        inflated = np.zeros((depth, *kernel.shape), kernel.dtype)
        inflated[-1] = kernel
        return inflated

    monkeypatch.setattr(inflate, "inflate_centre", at_the_end)


def test_a_right_lift_agrees_up_to_float64_rounding():
    proof = verify_lift(plan_lift(_network("relu"), depth=7), precision="float64")
    assert proof.verdict == "proved"
    assert proof.is_proved
    assert max(proof.difference, proof.promised_difference) < 1e-13
    assert all(word in str(proof) for word in ("network", "isotropic", "float64", "proved"))


def test_a_wrong_lift_is_refuted_and_its_first_layer_named(monkeypatch):
    _misplace_tap(monkeypatch)
    proof = verify_lift(plan_lift(_network("relu"), depth=7))
    assert proof.is_refuted
    assert not proof.is_proved
    assert proof.precision == "float64"
    assert proof.worst_layer == "first"
    assert proof.promised_difference > 0.1
    assert str(proof).splitlines()[-2].split()[-1] == "first"


def test_a_lift_that_is_not_exact_by_plan_is_neither_proved_nor_refuted():
    proof = verify_lift(
        plan_lift(_network("tanh", is_inexact=True), depth=7),
        random_weights=True,
        precision="float64",
    )
    assert proof.verdict == proof.row()["verdict"] == "not exact by plan"
    assert not proof.is_proved
    assert not proof.is_refuted
    assert proof.difference > 1e-3
    assert proof.promised_difference < 1e-13
    assert all(layer in str(proof) for layer in proof.inexact)


def test_an_inexact_layer_hides_no_mistake_before_it(monkeypatch):
    _misplace_tap(monkeypatch)
    proof = verify_lift(plan_lift(_network("tanh", is_inexact=True), depth=7), random_weights=True)
    assert proof.inexact
    assert proof.is_refuted
    assert proof.worst_layer == "first"


def test_an_inexact_layer_hides_no_mistake_after_it(monkeypatch):
    image = keras.Input(IMAGE)
    x = layers.Activation("tanh")(layers.ZeroPadding2D(1)(image))
    x = layers.Conv2D(3, 3, padding="same", name="after")(x)
    plan = plan_lift(keras.Model(image, layers.GlobalAveragePooling2D()(x)), depth=7)
    right = verify_lift(plan, precision="float64")
    assert (right.verdict, right.layers, right.layer_count) == ("not exact by plan", 3, 4)
    assert right.difference > 1e-3
    assert right.promised_difference < 1e-13
    _misplace_tap(monkeypatch)
    wrong = verify_lift(plan, precision="float64")
    assert (wrong.verdict, wrong.worst_layer) == ("NOT PROVED", "after")


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("squash", ["softmax", "sigmoid"])
def test_a_saturated_head_hides_nothing(monkeypatch, squash, separate):
    image = keras.Input(IMAGE)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3, padding="same")(image))
    if separate:
        x = layers.Activation(squash, name="squash")(layers.Dense(2, name="head")(x))
    else:
        x = layers.Dense(2, activation=squash, name="head")(x)
    network = keras.Model(image, x)
    head = network.get_layer("head")
    head.set_weights([np.full((3, 2), 1e-6), np.array([90.0, -90.0])])
    assert np.asarray(network(np.ones((1, *IMAGE)))).max() == pytest.approx(1)
    assert (
        verify_lift(plan_lift(network, depth=7)).verdict == "no signal"
    )  # the logits do not depend on the slice either
    head.set_weights([np.array([[900.0, -900]] * 3), np.zeros(2)])
    assert verify_lift(plan_lift(network, depth=7)).is_proved
    _misplace_tap(monkeypatch)
    assert verify_lift(plan_lift(network, depth=7)).difference > 0.01
    assert network.get_layer("squash" if separate else "head").activation.__name__ == squash


def test_both_calls_of_a_shared_layer_are_compared():
    image = keras.Input(IMAGE)
    shared = layers.Conv2D(2, 3, padding="same", name="shared")
    network = keras.Model(image, layers.GlobalAveragePooling2D()(shared(shared(image))))
    proof = verify_lift(plan_lift(network, depth=5))
    assert (proof.layers, proof.layer_count) == (3, 3)


def test_a_proof_in_float64_leaves_the_layers_in_their_own_precision():
    image = keras.Input(IMAGE)
    x = layers.Conv2D(3, 3, dtype="mixed_bfloat16")(image)
    network = keras.Model(image, layers.GlobalAveragePooling2D(dtype="float32")(x))
    before = [layer.dtype_policy.name for layer in network.layers]
    proof = verify_lift(plan_lift(network, depth=5), precision="float64")
    assert proof.difference < 1e-12
    assert [layer.dtype_policy.name for layer in network.layers] == before


def test_images_have_the_intensities_that_the_network_expects():
    image = keras.Input(IMAGE)
    x = layers.Conv2D(3, 3)(layers.Normalization(mean=[120.0, 130.0], variance=[3000.0, 3500.0])(image))
    proof = verify_lift(plan_lift(keras.Model(image, layers.GlobalAveragePooling2D()(x)), depth=5))
    assert proof.response > 0.05
    assert proof.is_proved


def test_float64_decides_where_float32_is_not_precise_enough():
    plan = plan_lift(_network("relu"), depth=7)
    assert verify_lift(plan, tolerance=1e-10, precision="float32").is_refuted
    proof = verify_lift(plan, tolerance=1e-10)
    assert (proof.precision, proof.verdict) == ("float64", "proved")
    assert verify_lift(plan).precision == "float32"


def test_a_network_whose_outputs_are_nan_is_not_proved():
    network = _network("relu")
    network.get_layer("second").set_weights([np.full((3, 3, 3, 3), np.nan), np.zeros(3)])
    assert verify_lift(plan_lift(network, depth=7)).is_refuted


def test_the_proof_leaves_the_network_as_it_was():
    network = _network("relu")
    before = network.get_weights()
    verify_lift(plan_lift(network, depth=7), random_weights=True)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
