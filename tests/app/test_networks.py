import keras
import pytest

from app.networks import protect_shallow_convolutions


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
