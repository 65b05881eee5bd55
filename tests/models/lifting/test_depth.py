"""Depth policies: for a whole network, per layer, per stage, and by spacing."""

import keras
import numpy as np
from keras import layers

from lifts import image_network, lift_problems
from voxlift.models.lifting import to_3d


def _stages(x, count=2):
    for stage in range(count):
        x = layers.Conv2D(2, 3, padding="same", name=f"conv_{stage}")(x)
        x = layers.MaxPooling2D(2, name=f"pool_{stage}")(x)
    return x


def _kernels(network, policy, count=2, **settings):
    lifted = to_3d(network, depth=8, depth_policy=policy, **settings)
    return [lifted.get_layer(f"conv_{stage}").kernel_size[0] for stage in range(count)]


def test_a_policy_per_layer_and_per_stage():
    network = image_network(_stages)
    assert _kernels(network, {"conv_0": "slicewise", "default": "preserve"}) == [1, 3]
    assert _kernels(network, {"conv_*": "slicewise"}) == [1, 1]
    assert _kernels(network, ["slicewise", {"kernel": 3, "stride": 1, "pool": 1}]) == [1, 3]
    assert _kernels(network, {"kernel": 5}) == [5, 5]


def test_the_coarse_axis_is_left_out_until_spacings_are_alike():
    network = image_network(lambda x: _stages(x, 4), (32, 32, 1))
    settings = {"spacing": (5.0, 1.0, 1.0)}
    assert _kernels(network, "spacing", 4, **settings) == [1, 1, 3, 3]
    lifted = to_3d(network, depth=8, depth_policy="spacing", **settings)
    assert [lifted.get_layer(f"pool_{stage}").output.shape[1] for stage in range(4)] == [8, 8, 4, 2]


def test_a_wrong_policy_is_reported_with_what_was_received():
    network = image_network(_stages)
    for policy, word in (
        ({"stemm": "slicewise"}, "'stemm'"),
        ("isotropc", "'isotropc'"),
        ({"stride": 0}, "0"),
        ("spacing", "spacing="),
    ):
        (problem,) = lift_problems(network, depth=4, depth_policy=policy)
        assert problem.layer == "depth_policy"
        assert word in problem.reason
    (problem,) = lift_problems(network, depth=4, spacing=(1.0, -2.0, 1.0))
    assert "-2.0" in problem.reason


def test_the_depth_that_runs_out_is_named_with_the_policy_that_avoids_it():
    network = image_network(_stages)
    (problem,) = lift_problems(network, depth=3)
    assert (problem.kind, problem.layer) == ("MaxPooling2D", "pool_1")
    assert "'preserve'" in problem.fix
    assert to_3d(network, depth=3, depth_policy="preserve").input_shape == (None, 3, 10, 12, 4)


def test_an_open_depth_accepts_volumes_of_any_depth():
    network = image_network(lambda x: layers.GlobalAveragePooling2D()(_stages(x)))
    lifted = to_3d(network, depth=None)
    assert lifted.input_shape == (None, None, 10, 12, 4)
    for depth in (5, 9):
        assert lifted(np.zeros((1, depth, 10, 12, 4), "float32")).shape == (1, 2)


def test_centre_and_preserve_give_the_mean_of_the_slices_on_any_volume():
    def body(x):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2, padding="same")(x)))
        x = layers.Add()([x, layers.Conv2D(4, 3, padding="same")(layers.MaxPooling2D(2, 1, "same")(x))])
        return layers.GlobalAveragePooling2D()(x)

    network = image_network(body)
    volume = np.random.default_rng(0).normal(size=(1, 6, 10, 12, 4)).astype("float32")
    lifted = to_3d(network, depth=6, depth_policy="preserve")
    slices = np.array(network(volume[0])).mean(axis=0)
    np.testing.assert_allclose(np.array(lifted(volume))[0], slices, atol=1e-6)


def test_a_network_without_an_image_is_reported():
    for shape in ((7,), (8, 10, 12, 1)):
        inputs = keras.Input(shape)
        network = keras.Model(inputs, layers.Dense(2)(inputs))
        (problem,) = lift_problems(network, depth=8)
        assert problem.layer == "inputs"
        assert str((None, *shape)) in problem.reason
