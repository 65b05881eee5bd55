from types import SimpleNamespace

import keras
import pytest

from app.networks import build_networks, protect_shallow_convolutions
from app.settings import DataSettings, ModelSettings, SettingsError, TrainSettings, check_settings


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
    from models.layers import FewPositionsConv3D

    inputs = keras.Input((2, 8, 8, 2))
    x = FewPositionsConv3D(2, 3, padding="same", name="safe", dtype="mixed_bfloat16")(inputs)
    x = FewPositionsConv3D(2, 3, padding="same", groups=2, name="grouped", dtype="mixed_bfloat16")(x)
    assert protect_shallow_convolutions(keras.Model(inputs, x)) == ["grouped"]


def settings_of(**changes):
    return ModelSettings(name="volume3d", kind="volume", init="random", filters=[4, 6, 8], **changes)


def cohort_of(shape):
    preprocess = SimpleNamespace(spacing=(1.0, 1.0, 1.0))
    return SimpleNamespace(shape=shape, classes=("a", "b"), preprocess=preprocess)


def kernels_of(network):
    return [layer.kernel_size for layer in network.layers if isinstance(layer, keras.layers.Conv3D)]


def test_filters_are_scaled_and_kernels_deepened_as_the_settings_say():
    shape = (8, 12, 16, 1)
    plain = build_networks(settings_of(), cohort_of(shape)).trained
    half = build_networks(settings_of(filter_scale=0.5), cohort_of(shape)).trained
    deep = build_networks(settings_of(depth_kernel=5), cohort_of(shape)).trained
    counts = [layer.filters for layer in half.layers if isinstance(layer, keras.layers.Conv3D)]
    assert counts == [2, 3, 4]
    assert kernels_of(plain) == [(3, 3, 3)] * 3
    assert kernels_of(deep) == [(5, 3, 3)] * 3
    assert deep.output_shape == plain.output_shape == (None, 2)


def test_a_flat_head_has_a_weight_for_every_place():
    network = build_networks(settings_of(head="flatten"), cohort_of((8, 12, 16, 1))).trained
    assert network.get_layer("logits").kernel.shape == (2 * 3 * 4 * 8, 2)
    pooled = build_networks(settings_of(), cohort_of((8, 12, 16, 1))).trained
    assert pooled.get_layer("logits").kernel.shape == (8, 2)


def test_what_another_network_cannot_follow_is_said_at_the_door():
    settings = TrainSettings(
        data=DataSettings(name="phantom", task="nodule"),
        model=ModelSettings(name="v", kind="volume", baseline="ResNet50", head="flatten", filter_scale=2.0),
    )
    with pytest.raises(SettingsError, match=r"model.head=flatten(.|\n)*model.filter_scale=2"):
        check_settings(settings)
