"""What voxlift-lift writes can be trained: a 3D network as the baseline of a volume model."""

import keras
import numpy as np
import pytest

from commands import call_command, compose_command
from tiny import TINY, places_in
from voxlift.app.cli.train import read_settings
from voxlift.app.config import SettingsError
from voxlift.app.runs.folder import RunFolder, load_network
from voxlift.app.training.baseline import is_volume_file
from voxlift.app.training.networks import InputSpec
from voxlift.app.training.stages import build_stages
from voxlift.models import to_3d
from voxlift.models.baselines import build_baseline
from voxlift.models.slice_model import wrap_slices

SHAPE = (8, 12, 16)  # depth, height, width


def save_lifted(file, *, channels=3, classes=2, head="pool", softmax=False):
    """A lifted network in a file; its weights are random."""
    flat = build_baseline(
        "cnn", input_shape=(12, 16, channels), classes=classes, filters=(3, 4, 5), head=head, dropout=0.0
    )
    network = to_3d(flat, depth=8)
    if softmax:
        network = keras.Model(network.inputs[0], keras.layers.Softmax(name="p")(network.outputs[0]))
    network.save(file)
    return network


def save_sequential(file, shape):
    """A sequential network in a file, in which another network, of the same rank, is nested."""
    nested = keras.Sequential([keras.Input(shape), keras.layers.ReLU()])
    keras.Sequential([keras.Input(shape), nested, keras.layers.Flatten(), keras.layers.Dense(2)]).save(file)


def build(file, *, channels=1, classes=("a", "b"), shape=SHAPE):
    settings = read_settings(compose_command("train", "model=volume3d", f"model.baseline={file}"))
    (stage,) = build_stages(settings, InputSpec((*shape, channels), classes))
    return stage.take_networks().trained


def test_a_grey_volume_scores_as_its_equal_channels_did(tmp_path):
    saved = save_lifted(tmp_path / "lifted.keras", softmax=True)
    network = build(tmp_path / "lifted.keras")
    grey = np.random.default_rng(0).uniform(0, 1, (2, *SHAPE, 1)).astype(np.float32)
    wanted = saved(np.repeat(grey, 3, axis=-1)).numpy()
    logits = network(grey)
    np.testing.assert_allclose(keras.ops.softmax(logits), wanted, atol=1e-6)
    assert not np.allclose(np.sum(logits, axis=-1), 1)


def test_other_classes_get_a_new_head_and_the_other_weights_stay(tmp_path):
    saved = save_lifted(tmp_path / "lifted.keras", channels=1)
    network = build(tmp_path / "lifted.keras", classes=("a", "b", "c"))
    assert network.output_shape == (None, 3)
    before, after = saved.get_weights(), network.get_weights()
    for ours, theirs in zip(after[:-2], before[:-2], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_saved_slice_model_is_a_2d_network_to_lift(tmp_path):
    flat = build_baseline(
        "cnn", input_shape=(12, 16, 1), classes=2, filters=(3, 4, 5), head="pool", dropout=0.0
    )
    wrap_slices(flat, input_shape=(*SHAPE, 1)).save(tmp_path / "slices.keras")
    flat.save(tmp_path / "flat.keras")
    save_lifted(tmp_path / "lifted.keras", channels=1)
    save_sequential(tmp_path / "sequential.keras", (*SHAPE, 1))
    save_sequential(tmp_path / "sequential2d.keras", (*SHAPE[1:], 1))
    kinds = {path.stem: is_volume_file(path) for path in tmp_path.glob("*.keras")}
    three_d = {"lifted", "sequential"}
    assert kinds == {name: name in three_d for name in (*three_d, "slices", "flat", "sequential2d")}
    settings = compose_command(
        "train", "model=volume3d", "model.init=centre", f"model.baseline={tmp_path}/slices.keras"
    )
    (stage,) = build_stages(read_settings(settings), InputSpec((*SHAPE, 1), ("a", "b")))
    kernels = [
        layer.kernel for layer in stage.take_networks().trained.layers if "Conv" in type(layer).__name__
    ]
    np.testing.assert_array_equal(kernels[0][1], flat.layers[1].kernel)  # the middle plane of depth


def test_what_does_not_fit_is_refused_with_the_file(tmp_path):
    file = tmp_path / "lifted.keras"
    save_lifted(file, head="flatten")
    with pytest.raises(SettingsError, match=r"lifted\.keras"):
        build(file, shape=(8, 16, 16))
    with pytest.raises(SettingsError, match=r"model\.filter_scale"):
        read_settings(
            compose_command("train", "model=volume3d", f"model.baseline={file}", "model.filter_scale=0.5")
        )
    images = keras.Input((*SHAPE, 1))
    keras.Model(images, keras.layers.Conv3D(2, 3)(images)).save(file)
    with pytest.raises(SettingsError, match=r"\(None, 6, 10, 14, 2\)"):
        build(file)


@pytest.mark.parametrize("model", ["slice2d", "volume3d"])
def test_the_file_that_voxlift_lift_writes_is_trained_by_a_volume_model_alone(model, tmp_path, capsys):
    flat = build_baseline("cnn", input_shape=(12, 16, 1), classes=2, filters=(3, 4, 5))
    flat.save(tmp_path / "flat.keras")
    file = tmp_path / "lifted.keras"
    assert call_command("lift", f"network={tmp_path}/flat.keras", "depth=8", f"output={file}") == 0
    command = ("train", *TINY, *places_in(tmp_path, "run"), f"model={model}", f"model.baseline={file}")
    status = call_command(*command, "trainer.epochs=1", "logger=none")
    if model == "slice2d":
        assert status == 2
        assert "lifted.keras" in capsys.readouterr().err
        return
    assert status == 0
    assert load_network(RunFolder(tmp_path / "run").model).input_shape == (None, *SHAPE, 1)
