"""The lift as a whole: the network it gives, its exactness, its messages."""

import keras
import numpy as np
import pytest
from keras import layers

from voxlift.models import LiftError, plan_lift, to_3d

RNG = np.random.default_rng(0)


def _tutorial(conv, pool, shape):
    return keras.Sequential(
        [
            keras.Input(shape),
            conv(32, 3, activation="relu"),
            pool(2),
            conv(64, 3, activation="relu"),
            pool(2),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ]
    )


def _baseline(stages=(4, 6)):
    image = keras.Input((12, 10, 1), name="image")
    x = image
    for index, filters in enumerate(stages):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv_{index}")(x)
        x = layers.BatchNormalization(axis=3, name=f"norm_{index}")(x)
        x = layers.Activation("relu", name=f"relu_{index}")(x)
        x = layers.MaxPooling2D(2, name=f"pool_{index}")(x)
    x = layers.Dropout(0.3, name="drop")(layers.GlobalAveragePooling2D(name="mean")(x))
    return keras.Model(image, layers.Dense(3, dtype="float32", name="head")(x), name="baseline")


def _randomise(model):
    """Give every weight, batch statistics too, a value that a wrong copy would show."""
    model.set_weights([RNG.uniform(0.2, 1.0, weight.shape) for weight in model.get_weights()])
    return model


def _largest_difference(model_2d, model_3d, depth):
    image = RNG.normal(size=(2, *model_2d.input_shape[1:])).astype("float32")
    volume = np.repeat(image[:, None], depth, axis=1)
    expected, received = model_2d.predict(image, verbose=0), model_3d.predict(volume, verbose=0)
    return np.abs(expected - received).max() / np.abs(expected).max()


def test_tutorial_network_becomes_what_the_tutorial_writes_by_hand():
    lifted = to_3d(_tutorial(layers.Conv2D, layers.MaxPooling2D, (32, 32, 3)), depth=32)
    by_hand = _tutorial(layers.Conv3D, layers.MaxPooling3D, (32, 32, 32, 3))
    assert isinstance(lifted, keras.Sequential)
    assert len(lifted.layers) == len(by_hand.layers)
    for layer, expected in zip(lifted.layers, by_hand.layers, strict=True):
        ours, theirs = layer.get_config(), expected.get_config()
        ours.pop("name")
        theirs.pop("name")
        assert type(layer) is type(expected)
        assert ours == theirs
        assert layer.output.shape == expected.output.shape
        assert [weight.shape for weight in layer.weights] == [weight.shape for weight in expected.weights]


@pytest.mark.parametrize("policy", ["isotropic", "preserve", "slicewise"])
def test_centre_lift_equals_2d_on_a_repeated_slice(policy):
    baseline = _randomise(_baseline())
    lifted = to_3d(baseline, depth=7, depth_policy=policy)
    assert _largest_difference(baseline, lifted, 7) < 1e-5
    assert [layer.name for layer in lifted.layers] == [layer.name for layer in baseline.layers]


def test_flattened_volume_answers_as_its_repeated_slice():
    network = _randomise(_tutorial(layers.Conv2D, layers.MaxPooling2D, (14, 12, 2)))
    assert _largest_difference(network, to_3d(network, depth=11), 11) < 1e-5


def test_depth_that_runs_out_is_named_with_the_policy_that_avoids_it():
    with pytest.raises(LiftError, match=r"(?s)MaxPooling2D 'pool_1' .*'preserve'") as caught:
        plan_lift(_baseline(), depth=3)
    assert len(caught.value.problems) == 1
    assert plan_lift(_baseline(), depth=3, depth_policy="preserve").build().input_shape == (
        None,
        3,
        12,
        10,
        1,
    )


def test_all_layers_without_a_rule_are_listed_at_once():
    image = keras.Input((8, 8, 2))
    x = layers.Permute((2, 1, 3), name="turn")(image)
    x = layers.Lambda(lambda y: y * 2, name="twice")(x)
    x = layers.Conv2D(3, 3, name="conv")(x)
    network = keras.Model(image, layers.Permute((3, 1, 2), name="again")(x))
    with pytest.raises(LiftError) as caught:
        plan_lift(network, depth=8)
    assert [(problem.layer, problem.kind) for problem in caught.value.problems] == [
        ("turn", "Permute"),
        ("twice", "Lambda"),
        ("again", "Permute"),
    ]
    assert "register_lift_rule" in str(caught.value)


def test_open_depth_takes_volumes_of_any_depth():
    lifted = to_3d(_baseline(), depth=None)
    assert lifted.input_shape == (None, None, 12, 10, 1)
    for depth in (5, 9):
        assert lifted(np.zeros((1, depth, 12, 10, 1), "float32")).shape == (1, 3)


def test_plan_builds_nothing_and_says_what_the_model_will_be():
    plan = plan_lift(_baseline(), depth=8)
    lifted = plan.build()
    assert sum(row["params_3d"] for row in plan.rows()) == lifted.count_params()
    shapes = {layer.name: layer.output.shape for layer in lifted.layers}
    assert all(shapes[row["layer"]] == row["shape_3d"] for row in plan.rows())
