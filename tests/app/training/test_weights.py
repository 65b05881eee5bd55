"""Trained weights of a named network: every kind of model starts from them, or a sentence says why not."""

from urllib.error import URLError

import keras
import numpy as np
import pytest

from commands import call_command, compose_command
from tiny import places_in
from voxlift.app.cli.train import read_settings
from voxlift.app.files import read_rows
from voxlift.app.runs.folder import RunFolder, load_network
from voxlift.app.training.networks import InputSpec
from voxlift.app.training.stages import build_stages

BASELINE = "model.baseline=MobileNetV3Small"
SHAPE = (4, 32, 40, 1)  # [D, H, W, C]
SMALL = (
    "data.subjects=12",
    "preprocess.shape=[4,32,40]",
    "preprocess.spacing=[16,2,1.6]",
    "precision=float32",
    "trainer.batch_size=4",
    "splits.val=0.25",
    "splits.test=0.25",
    "augment=none",
    "logger=none",
    "preflight.enabled=false",
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The weights file of a small network with random weights, and its stem's kernel."""
    file = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    network = keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(32, 40, 3))
    network.save_weights(file)
    return file, network.get_layer("conv").kernel.numpy()


def plan(*overrides, preprocess="ct"):
    settings = read_settings(compose_command("train", f"preprocess={preprocess}", BASELINE, *overrides))
    return build_stages(settings, InputSpec(SHAPE, ("a", "b"), None, settings.preprocess))


@pytest.mark.parametrize(
    ("model", "init"),
    [("slice2d", None), ("slab25d", None), ("volume3d", "centre"), ("acs", None), ("inflated", None)],
)
def test_every_kind_of_model_starts_from_the_stem_summed_over_the_colours(model, init, weights):
    file, stem = weights
    changes = [f"model.init={init}"] if init else []
    stages = plan(f"model={model}", f"model.weights={file}", *changes)
    for stage in stages:
        network = stage.take_networks().own
        kernel = network.get_layer("conv").kernel.numpy()
        is_summed = kernel.ndim == 5 and model != "acs"
        taps = kernel.sum(axis=0) if is_summed else kernel.reshape((*stem.shape[:2], -1, 16))
        expected = stem if model == "slab25d" else stem.sum(axis=2, keepdims=True)
        np.testing.assert_allclose(taps, expected, atol=1e-6)
        assert network.get_layer("input_scaling").scale == 255
    assert len(stages) == (2 if model == "inflated" else 1)


def test_standard_scores_are_clipped_and_the_log_says_so(weights, caplog):
    file, _ = weights
    with caplog.at_level("INFO", logger="voxlift"):
        (stage,) = plan("model=slice2d", f"model.weights={file}", preprocess="mri")
    assert stage.take_networks().own.get_layer("input_clip").max_value == 1
    assert "-3" in caplog.text


def test_what_has_no_weights_or_no_range_is_refused_with_its_key(weights, tmp_path, capsys):
    file, _ = weights
    known = f"model.weights={file}"
    for named, *arguments in (
        ("model.baseline=cnn", known),
        ("preprocess=none", BASELINE, known, "preprocess=none"),
        ("model.init=random", BASELINE, known, "model=volume3d"),
        ("nowhere.h5", BASELINE, "model.weights=nowhere.h5"),
        (str(file), "model.baseline=MobileNet", known),
    ):
        command = ("train", *SMALL, *places_in(tmp_path, "run"), "model=slice2d", *arguments)
        assert call_command(*command) == 2
        message = capsys.readouterr().err.strip()
        assert named in message
        assert not message.endswith(":")  # Keras lists what is wrong below such a line
    assert not (tmp_path / "cache").exists()


def test_without_a_network_the_missing_file_is_named_with_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))  # read by Keras when it is imported
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))

    def refuse(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse)
    command = ("train", *SMALL, *places_in(tmp_path, "run"), "model=slice2d", BASELINE)
    assert call_command(*command, "model.weights=imagenet") == 2
    message = capsys.readouterr().err
    assert "weights_mobilenet_v3_small" in message
    assert str(tmp_path / "models") in message


def test_a_volume_network_with_trained_weights_is_tuned_and_keeps_its_scaling(weights, tmp_path):
    file, _ = weights
    tuned = (f"model.weights={file}", "model.init=centre", "model.freeze_epochs=1", "model.rate_factor=0.5")
    command = ("train", *SMALL, *places_in(tmp_path, "run"), "model=volume3d", BASELINE, *tuned)
    assert call_command(*command, "trainer.epochs=1") == 0
    run = RunFolder(tmp_path / "run")
    assert load_network(run.model).get_layer("input_scaling").scale == 255
    scan = read_rows(run.splits)[0]["image"]
    assert call_command("predict", f"run={run.path}", f"input={scan}", f"output={tmp_path}/p.csv") == 0
