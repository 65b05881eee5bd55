"""`model=slice2d_frozen`: features of a frozen 2D network, pooled by attention, through every command."""

import json

import keras
import numpy as np
import pytest

from commands import call_command, compose_command
from tiny import TINY, train_tiny
from voxlift.app.cli.train import read_settings
from voxlift.app.config import SettingsError
from voxlift.app.files import read_json, read_rows
from voxlift.app.inference.run import open_run
from voxlift.app.runs.folder import load_network
from voxlift.app.training.networks import InputSpec
from voxlift.app.training.stages import build_stages, slice_settings, trains_slices_first
from voxlift.models.baselines import build_baseline
from voxlift.models.slice_model import find_slice_network, unwrap_slices

SHAPE = (8, 12, 16, 1)  # [D, H, W, C]
QUICK = ("augment=none", "logger=none", "preflight.enabled=false", "trainer.epochs=1")


def composed(*overrides):
    return read_settings(compose_command("train", *TINY, "model=slice2d_frozen", *overrides))


def build(*overrides, shape=SHAPE, classes=("a", "b")):
    settings = composed(*overrides)
    (stage,) = build_stages(settings, InputSpec(shape, classes, None, settings.preprocess))
    return stage.take_networks().trained


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("frozen")


@pytest.fixture(scope="module")
def run(work):
    return train_tiny(work, "frozen", "model=slice2d_frozen", *QUICK)


def weights_by_name(network):
    return {
        weight.path.rpartition("/")[0].rpartition("/")[2] + weight.name: weight.numpy()
        for weight in network.weights
    }


def test_the_network_is_trained_on_slices_first_and_keeps_these_weights(run):
    trained = weights_by_name(unwrap_slices(load_network(run.slice_model.model)))
    frozen = weights_by_name(find_slice_network(load_network(run.model)))
    assert frozen
    for name, weight in frozen.items():
        np.testing.assert_array_equal(weight, trained[name])
    cost = read_json(run.metrics)["cost"]
    assert cost["pretrain_seconds"] == read_json(run.slice_model.metrics)["cost"]["train_seconds"]


def test_the_run_goes_through_every_command(run, tmp_path):
    assert call_command("train", f"resume={run.path}", "trainer.epochs=2") == 0
    assert len(read_rows(run.history)) == 2
    assert call_command("evaluate", f"run={run.path}") == 0
    again, metrics = read_json(run.evaluation("test"))["test"], read_json(run.metrics)
    np.testing.assert_allclose(again["auc"], metrics["test"]["auc"])
    rows = [row for row in read_rows(run.predictions) if row["split"] == "test"]
    image = rows[0]["image"]
    predict = ("predict", f"run={run.path}", f"input={image}")
    assert call_command(*predict, f"output={tmp_path}/p.csv", "explain=true") == 0
    (row,) = read_rows(tmp_path / "p.csv")
    np.testing.assert_allclose(float(row["p_nodule"]), float(rows[0]["p_nodule"]), atol=1e-4)
    assert (tmp_path / row["map"]).exists()
    assert call_command(*predict, f"output={tmp_path}/vectors.npz", "embed=true") == 0
    assert np.load(tmp_path / "vectors.npz")["vectors"].shape == (1, 3 * 8)  # with both neighbours
    assert call_command("export", f"run={run.path}", f"output={tmp_path}/export") == 0
    assert json.loads((tmp_path / "export" / "contract.json").read_text())
    explained = open_run(run.path).explain(image)
    assert explained.heat.shape == SHAPE[:3]


def test_its_first_stage_is_the_slice_model_of_a_comparison():
    assert (
        slice_settings(composed()).model
        == read_settings(compose_command("train", *TINY, "model=slice2d")).model
    )
    first = slice_settings(composed("model.axis=width", "model.slab=3")).model
    assert (first.axis, first.slab, first.frozen, first.aggregate) == ("width", 3, False, "mean")


def test_a_slice_run_a_file_and_a_weights_file_give_the_features(run, tmp_path):
    source = run.slice_model.path
    network = build(f"model.baseline={source}", shape=(6, 20, 24, 1), classes=("a", "b", "c"))
    trained = weights_by_name(unwrap_slices(load_network(run.slice_model.model)))
    for name, weight in weights_by_name(find_slice_network(network)).items():
        np.testing.assert_array_equal(weight, trained[name])
    assert network.output_shape == (None, 3)

    flat = build_baseline("cnn", input_shape=(12, 16, 3), classes=5, filters=(3, 4, 5))
    flat.save(tmp_path / "flat.keras")
    grey = find_slice_network(build(f"model.baseline={tmp_path}/flat.keras")).get_layer("stage1_conv").kernel
    np.testing.assert_allclose(
        grey, np.sum(flat.get_layer("stage1_conv").kernel, axis=2, keepdims=True), atol=1e-6
    )

    large = keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(32, 40, 3))
    large.save_weights(tmp_path / "large.weights.h5")
    named = ("model.baseline=MobileNetV3Small", f"model.weights={tmp_path}/large.weights.h5")
    assert not trains_slices_first(composed(*named).model)
    pooled = build(*named, "preprocess.window_hu=[0,1]", shape=(4, 32, 40, 1))
    assert find_slice_network(pooled).get_layer("input_scaling").scale == 255
    assert not find_slice_network(pooled).trainable_weights


def test_what_cannot_be_frozen_is_refused_with_its_key():
    for named, *overrides in (
        (r"model\.frozen", "model.pretrain=false"),
        (r"model\.aggregate=gated_attention", "model.aggregate=mean"),
        (r"model\.freeze_epochs", "model.freeze_epochs=1"),
    ):
        with pytest.raises(SettingsError, match=named):
            composed(*overrides)


def test_a_model_of_pooled_features_cannot_be_lifted(run, capsys):
    lift = ("model=volume3d", "model.init=centre", f"model.baseline={run.path}")
    with pytest.raises(SettingsError, match="slice run"):
        read_settings(compose_command("train", *TINY, *lift))
    assert call_command("lift", f"network={run.path}", "depth=8", "plan_only=true") == 2
    assert str(run.path) in capsys.readouterr().err
