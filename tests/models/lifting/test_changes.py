"""What a lift may change besides the rank: channels, filters, classes, size, policy.

And what users do with the result.
"""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from voxlift.models.complexity import model_cost
from voxlift.models.lifting import LiftError, load_network, plan_lift, to_3d, verify_lift

RNG = np.random.default_rng(0)

# TensorFlow's variables do not know numpy 2's copy keyword yet: Keras meets that while it saves.
saves = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


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


def test_grey_volumes_answer_as_grey_images():
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
def test_a_grey_lift_proves_itself_even_behind_weights_per_channel(normalised):
    plan = plan_lift(_network(normalised=normalised), depth=4, channels=1)
    assert plan.build().input_shape == (None, 4, 16, 12, 1)
    assert verify_lift(plan, settle=True).difference < 1e-5


def test_two_channels_before_weights_per_channel_are_refused():
    with pytest.raises(LiftError, match="every channel by itself"):
        plan_lift(_network(normalised=True), depth=4, channels=2)


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
    with pytest.raises(LiftError, match="2 stages"):
        plan_lift(_network(), depth=4, filters=[4, 5, 6])
    with pytest.raises(LiftError, match="wider 2D network"):
        plan_lift(_network(), depth=4, filters=2.0)


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


def test_another_size_keeps_convolutions_and_is_refused_across_flatten():
    plan = plan_lift(_network(), input_shape=(5, 10, 14))
    assert plan.build().input_shape == (None, 5, 10, 14, 3)
    assert verify_lift(plan, settle=True).difference < 1e-5
    flat = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)])
    with pytest.raises(LiftError, match=r"global pool"):
        plan_lift(flat, input_shape=(5, 6, 7))
    assert to_3d(flat, input_shape=(5, 6, 7), init="random").output_shape == (None, 2)


def test_the_coarse_axis_waits_until_spacings_are_alike():
    image = keras.Input((32, 32, 1))
    x = image
    for stage in range(4):
        x = layers.MaxPooling2D(2, name=f"pool_{stage}")(
            layers.Conv2D(2, 3, padding="same", name=f"conv_{stage}")(x)
        )
    network = keras.Model(image, x)
    lifted = to_3d(network, depth=8, depth_policy="spacing", spacing=(5.0, 1.0, 1.0))
    assert [lifted.get_layer(f"conv_{stage}").kernel_size[0] for stage in range(4)] == [1, 1, 3, 3]
    assert [lifted.get_layer(f"pool_{stage}").output.shape[1] for stage in range(4)] == [8, 8, 4, 2]
    with pytest.raises(LiftError, match="spacing="):
        plan_lift(network, depth=8, depth_policy="spacing")


@pytest.mark.parametrize("init", ["centre", "acs"])
def test_the_plan_counts_what_the_built_networks_cost(init):
    network = _network()
    plan = plan_lift(network, depth=4, init=init)
    costs = {2: model_cost(network), 3: model_cost(plan.build())}
    for rank, cost in costs.items():
        assert sum(row[f"flops_{rank}d"] for row in plan.rows()) == cost.flops > 0
        assert sum(row[f"params_{rank}d"] for row in plan.rows()) == cost.parameters
    open_plan = plan_lift(network, depth=None)
    assert {row["flops_3d"] for row in open_plan.rows() if row["layer"] == "stem"} == {None}


def test_policies_per_layer_and_per_stage():
    network = _network()
    by_layer = to_3d(network, depth=4, depth_policy={"stem": "slicewise", "default": "preserve"})
    assert by_layer.get_layer("stem").kernel_size == (1, 3, 3)
    assert by_layer.get_layer("main").kernel_size == (3, 3, 3)
    by_stage = to_3d(network, depth=4, depth_policy=["slicewise", {"kernel": 3, "stride": 1, "pool": 1}])
    assert by_stage.get_layer("stem").kernel_size == (1, 3, 3)
    assert by_stage.get_layer("main").kernel_size == (3, 3, 3)
    with pytest.raises(LiftError, match="no layer is named 'stemm'"):
        plan_lift(network, depth=4, depth_policy={"stemm": "slicewise"})
    with pytest.raises(LiftError, match="isotropic, preserve"):
        plan_lift(network, depth=4, depth_policy="isotropc")


def test_branches_of_unlike_depth_are_refused():
    with pytest.raises(LiftError, match="2 and 4 slices"):
        plan_lift(
            _network(),
            depth=4,
            depth_policy={"side": {"kernel": 1, "stride": 2, "pool": 1}, "default": "preserve"},
        )


@saves
@pytest.mark.parametrize("init", ["centre", "acs"])
def test_the_saved_network_scores_the_same_in_a_fresh_process(tmp_path, init):
    lifted = to_3d(_network(), depth=4, init=init)
    volume = RNG.normal(size=(1, 4, 16, 12, 3)).astype("float32")
    lifted.save(tmp_path / "lifted.keras")
    np.save(tmp_path / "volume.npy", volume)
    script = (
        "import sys, keras, numpy as np, voxlift.models.layers\n"
        "model = keras.saving.load_model(sys.argv[1] + '/lifted.keras')\n"
        "np.save(sys.argv[1] + '/answer.npy', np.array(model(np.load(sys.argv[1] + '/volume.npy'))))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), np.array(lifted(volume)), atol=1e-6)


def test_a_lifted_network_trains():
    lifted = to_3d(_network(), depth=4, init="mean")
    lifted.compile("sgd", "sparse_categorical_crossentropy")
    before = lifted.get_layer("stem").get_weights()[0]
    lifted.fit(RNG.normal(size=(2, 4, 16, 12, 3)), np.array([0, 1]), epochs=1, verbose=0)
    assert np.abs(lifted.get_layer("stem").get_weights()[0] - before).max() > 0


def test_frozen_layers_stay_frozen():
    network = _network()
    network.get_layer("main").trainable = False
    lifted = to_3d(network, depth=4)
    assert not lifted.get_layer("main").trainable
    assert lifted.get_layer("stem").trainable


def test_the_printed_plan_has_the_facts_in_110_columns():
    text = str(plan_lift(_network(), depth=4))
    assert max(map(len, text.splitlines())) <= 110
    for word in ("stem", "3x3x3", "inflated, centre", "parameters:", "GFLOPs", "2 behind pool", "exact:"):
        assert word in text


@saves
def test_networks_are_found_by_name_or_path_and_missed_in_words(tmp_path):
    _network().save(tmp_path / "network.keras")
    assert load_network(tmp_path / "network.keras").name == "network"
    with pytest.raises(LiftError, match="ResNet50"):
        load_network("Resnet50")
    with pytest.raises(LiftError, match="no such file"):
        load_network(tmp_path / "missing.keras")
    with pytest.raises(LiftError, match="no weights file"):
        load_network("VGG16", weights=tmp_path / "missing.h5")
