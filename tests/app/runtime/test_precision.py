"""Layers that TensorFlow's CPU kernels cannot compute, or compute wrongly, compute in float32; only those."""

import keras
import numpy as np
import pytest

from voxlift.app.runs.folder import load_network
from voxlift.app.runtime.setup import protect_pooling, protect_shallow_convolutions
from voxlift.models.baselines import build_baseline
from voxlift.models.lifting import plan_lift
from voxlift.models.slice_model import wrap_slices

RNG = np.random.default_rng(0)
SHAPE = (6, 8, 10, 1)  # [D, H, W, C]


def build_stack(depth, kernel, policy):
    inputs = keras.Input((depth, 8, 8, 1))
    inner = keras.Sequential([keras.layers.Conv3D(2, kernel, padding="same", name="nested", dtype=policy)])
    x = keras.layers.Conv3D(2, kernel, padding="same", name="outer", dtype=policy)(inputs)
    return keras.Model(inputs, inner(x))


@pytest.mark.parametrize(
    ("depth", "kernel", "changed"),
    [
        (1, 3, []),
        (2, 3, ["outer", "nested"]),
        (3, 3, ["outer", "nested"]),
        (4, 3, []),
        (5, 5, ["outer", "nested"]),
    ],
)
def test_only_convolutions_on_few_slices_leave_bfloat16(depth, kernel, changed):
    network = build_stack(depth, kernel, "mixed_bfloat16")
    assert sorted(protect_shallow_convolutions(network)) == sorted(changed)
    policies = {layer.compute_dtype for layer in network._flatten_layers() if "Conv" in type(layer).__name__}
    assert policies == {"float32" if changed else "bfloat16"}


def test_float32_networks_are_left_alone():
    assert protect_shallow_convolutions(build_stack(2, 3, "float32")) == []


def test_the_protection_is_saved_with_the_model(tmp_path):
    network = build_stack(2, 3, "mixed_bfloat16")
    protect_shallow_convolutions(network)
    network.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    assert loaded.get_layer("outer").compute_dtype == "float32"


def test_a_convolution_with_a_safe_gradient_stays_in_bfloat16():
    from voxlift.models.layers import FewPositionsConv3D

    inputs = keras.Input((2, 8, 8, 2))
    x = FewPositionsConv3D(2, 3, padding="same", name="safe", dtype="mixed_bfloat16")(inputs)
    x = FewPositionsConv3D(2, 3, padding="same", groups=2, name="grouped", dtype="mixed_bfloat16")(x)
    assert protect_shallow_convolutions(keras.Model(inputs, x)) == ["grouped"]


def flat_network():
    return build_baseline("cnn", input_shape=SHAPE[1:], classes=2, filters=(2, 3, 4))


def adaptive_network():
    """As somebody might bring it along."""
    inputs = keras.Input(SHAPE)
    x = keras.layers.AdaptiveMaxPooling3D(4)(keras.layers.AdaptiveAveragePooling3D(5)(inputs))
    x = keras.layers.AveragePooling3D(2)(x)
    return keras.Model(inputs, keras.layers.Dense(2, dtype="float32")(keras.layers.Flatten()(x)))


@pytest.mark.parametrize(
    "build",
    [
        lambda: plan_lift(flat_network(), depth=SHAPE[0], depth_policy="isotropic").build(),
        lambda: wrap_slices(flat_network(), input_shape=SHAPE),
        adaptive_network,
    ],
    ids=["lifted", "slices", "brought along"],
)
def test_a_network_trained_in_float16_on_a_gpu_scores_on_a_cpu(build, tmp_path):
    keras.utils.set_random_seed(0)
    wide = build()
    keras.config.set_dtype_policy("mixed_float16")
    network = build()
    network.set_weights(wide.get_weights())
    network.save(tmp_path / "a.keras")
    voxels = RNG.normal(size=(3, *SHAPE)).astype("float32")
    loaded = load_network(tmp_path / "a.keras")
    assert "float16" in {layer.compute_dtype for layer in loaded._flatten_layers()}
    scores = loaded.predict(voxels, verbose=0)
    np.testing.assert_allclose(scores, wide.predict(voxels, verbose=0), atol=0.02)


def test_pooling_in_other_precisions_is_left_alone():
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert protect_pooling(adaptive_network()) == []
