"""The lift as a whole: the network that it gives, its plan, and what users do with it."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from voxlift.models import plan_lift, to_3d
from voxlift.models.complexity import model_cost

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


def _baseline():
    image = keras.Input((12, 10, 1), name="image")
    x = image
    for index, filters in enumerate((4, 6)):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv_{index}")(x)
        x = layers.BatchNormalization(axis=3, name=f"norm_{index}")(x)
        x = layers.Activation("relu", name=f"relu_{index}")(x)
        x = layers.MaxPooling2D(2, name=f"pool_{index}")(x)
    x = layers.Dropout(0.3, name="drop")(layers.GlobalAveragePooling2D(name="mean")(x))
    return keras.Model(image, layers.Dense(3, dtype="float32", name="head")(x), name="baseline")


def _randomise(model):
    """Give every weight, including batch statistics, a value that a wrong copy would show."""
    model.set_weights([RNG.uniform(0.2, 1.0, weight.shape) for weight in model.get_weights()])
    return model


def _largest_difference(model_2d, model_3d, depth):
    image = RNG.normal(size=(2, *model_2d.input_shape[1:])).astype("float32")
    volume = np.repeat(image[:, None], depth, axis=1)
    expected, received = model_2d.predict(image, verbose=0), model_3d.predict(volume, verbose=0)
    return np.abs(expected - received).max() / np.abs(expected).max()


def test_the_tutorial_network_becomes_what_the_tutorial_writes_by_hand():
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
def test_a_centre_lift_equals_2d_on_a_repeated_slice(policy):
    baseline = _randomise(_baseline())
    lifted = to_3d(baseline, depth=7, depth_policy=policy)
    assert _largest_difference(baseline, lifted, 7) < 1e-5
    assert [layer.name for layer in lifted.layers] == [layer.name for layer in baseline.layers]


def test_a_flattened_volume_gives_the_output_of_its_repeated_slice():
    network = _randomise(_tutorial(layers.Conv2D, layers.MaxPooling2D, (14, 12, 2)))
    assert _largest_difference(network, to_3d(network, depth=11), 11) < 1e-5


@pytest.mark.parametrize("init", ["centre", "acs"])
def test_the_plan_knows_the_shapes_parameters_and_operations_of_both_networks(init):
    network = _baseline()
    plan = plan_lift(network, depth=8, init=init)
    lifted = plan.build()
    for rank, cost in {2: model_cost(network), 3: model_cost(lifted)}.items():
        assert sum(row[f"flops_{rank}d"] for row in plan.rows()) == cost.flops > 0
        assert sum(row[f"params_{rank}d"] for row in plan.rows()) == cost.parameters
    shapes = {layer.name: layer.output.shape for layer in lifted.layers}
    assert all(shapes[row["layer"]] == row["shape_3d"] for row in plan.rows())
    open_rows = {row["layer"]: row for row in plan_lift(network, depth=None).rows()}
    assert open_rows["conv_0"]["flops_3d"] is None


def test_the_printed_plan_has_every_layer_and_total_in_110_columns():
    plan = plan_lift(_baseline(), depth=8)
    text = str(plan)
    assert max(map(len, text.splitlines())) <= 110
    totals = [f"{sum(row[key] for row in plan.rows()):,}" for key in ("params_2d", "params_3d")]
    for word in (*(row["layer"] for row in plan.rows()), *totals, "3x3x3", "GFLOPs", "isotropic", "centre"):
        assert word in text
    assert any("pool_0" in line and "pool_1" in line for line in text.splitlines())  # slices after each


# Keras's own conversion of a TensorFlow variable to numpy raises it.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_saved_networks_give_the_same_scores_in_a_fresh_process(tmp_path):
    volume = RNG.normal(size=(1, 4, 12, 10, 1)).astype("float32")
    np.save(tmp_path / "volume.npy", volume)
    lifted = {init: to_3d(_baseline(), depth=4, init=init) for init in ("centre", "acs")}
    for init, model in lifted.items():
        model.save(tmp_path / f"{init}.keras")
    script = (
        "import sys, pathlib, keras, numpy as np, voxlift.models.layers\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "for file in folder.glob('*.keras'):\n"
        "    model = keras.saving.load_model(file)\n"
        "    np.save(file.with_suffix('.npy'), np.array(model(np.load(folder / 'volume.npy'))))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True)
    for init, model in lifted.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{init}.npy"), np.array(model(volume)), atol=1e-6)
