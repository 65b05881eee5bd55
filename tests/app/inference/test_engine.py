"""A converted network scores as the network does, or is refused; `auto` measures which is faster."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from commands import compose_command
from voxlift.app.cli.evaluate import score_again
from voxlift.app.cli.predict import predict, read_settings
from voxlift.app.config import SettingsError
from voxlift.app.files import read_rows
from voxlift.app.inference import engine as engines
from voxlift.app.inference.conversion import given_inputs, random_inputs
from voxlift.app.inference.engine import choose_engine
from voxlift.app.inference.options import find_engine_problems
from voxlift.app.runs.folder import load_network
from voxlift.data_pipelines.pipeline import evaluation_volumes

needs_openvino = pytest.mark.skipif(not engines.has_openvino(), reason="needs the extra openvino")


@pytest.fixture(autouse=True)
def _measures_briefly(monkeypatch):
    monkeypatch.setattr(engines, "MEASURED_SECONDS", 0.05)


def images_of(run):
    return sorted({row["image"] for row in read_rows(run.predictions)})


def ask(run, inputs, engine, volumes=10**9):
    return choose_engine(engine, load_network(run.network), run.network, inputs, volumes=volumes)


def inputs_of(run, count=3):
    return random_inputs(load_network(run.network), count, None, seed=5)


def predict_table(folder, run, name, *settings):
    source = Path(images_of(run)[0]).parent
    output = folder / f"{name}.csv"
    given = (f"run={run.path}", f"input={source}", f"output={output}", *settings)
    assert predict(read_settings(compose_command("predict", *given))) == 0
    return read_rows(output), json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))


@needs_openvino
@pytest.mark.parametrize("name", ["slice2d", "slice2d_attention", "slab25d", "volume3d"])
def test_the_conversion_scores_as_the_network_for_any_batch(name, runs):
    network = load_network(runs[name].network)
    found = ask(runs[name], inputs_of(runs[name]), "openvino")
    assert found.name == "openvino"
    for count in (1, 4):
        own = random_inputs(network, count, None, seed=count)[0]
        expected = np.asarray(network.predict_on_batch(own))
        np.testing.assert_allclose(found.scorer.predict_on_batch(own), expected, atol=1e-4)


@needs_openvino
def test_a_network_with_columns_and_bfloat16_is_converted(train_once):
    run = train_once(
        "columns_engine", "model=volume3d_columns", "model.columns=[age,sex]", "precision=mixed_bfloat16"
    )
    network = load_network(run.network)
    inputs = inputs_of(run)
    found = ask(run, inputs, "openvino")
    assert found.name == "openvino"
    expected = np.asarray(network.predict_on_batch(given_inputs(inputs)), np.float32)
    np.testing.assert_allclose(found.scorer.predict_on_batch(given_inputs(inputs)), expected, atol=0.05)


@needs_openvino
def test_scores_that_differ_are_refused_or_left_alone(runs, monkeypatch, capsys):
    read = engines._read_model

    def read_changed(network):
        weights = network.get_weights()
        network.set_weights([*weights[:-1], weights[-1] + 0.5])  # the bias of the logits
        model = read(network)
        network.set_weights(weights)
        return model

    monkeypatch.setattr(engines, "_read_model", read_changed)
    run, inputs = runs["volume3d"], inputs_of(runs["volume3d"])
    with pytest.raises(SettingsError, match="engine=openvino"):
        ask(run, inputs, "openvino")
    monkeypatch.setattr(engines, "MIN_SECONDS", 0)
    network = load_network(run.network)
    found = choose_engine("auto", network, run.network, inputs, volumes=10**9)
    assert (found.name, found.scorer) == ("tensorflow", network)
    assert str(run.network) in capsys.readouterr().out


@needs_openvino
def test_auto_takes_the_faster_one_where_there_are_enough_volumes(runs, monkeypatch):
    run, inputs = runs["volume3d"], inputs_of(runs["volume3d"])
    few = ask(run, inputs, "auto", volumes=3)
    assert (few.name, few.ratio) == ("tensorflow", None)
    for own, other, expected in ((1.0, 0.5, "openvino"), (1.0, 0.95, "tensorflow"), (0.5, 1.0, "tensorflow")):
        monkeypatch.setattr(engines, "measure_pair", lambda *_, seconds=(own, other): seconds)
        found = ask(run, inputs, "auto")
        assert (found.name, found.ratio) == (expected, other / own)


def test_without_openvino_auto_is_tensorflow_and_openvino_names_the_extra(runs, monkeypatch):
    found_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "openvino" else found_spec(name)
    )
    run = runs["volume3d"]
    network = load_network(run.network)
    found = choose_engine("auto", network, run.network, inputs_of(run), volumes=10**9)
    assert (found.name, found.scorer) == ("tensorflow", network)
    (problem,) = find_engine_problems("openvino")
    assert "voxlift[openvino]" in problem


def test_an_engine_that_workers_or_the_backend_cannot_share_is_refused(monkeypatch):
    assert find_engine_problems("auto") == []
    (problem,) = find_engine_problems("auto", cluster="local")
    assert "engine=auto" in problem
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert any("KERAS_BACKEND" in problem for problem in find_engine_problems("openvino"))


@pytest.mark.slow
@needs_openvino
def test_predictions_maps_and_evaluations_agree_in_both_engines(runs, tmp_path):
    run = runs["volume3d"]
    asked = ("explain=occlusion", "report.cases=0", "tta=half_turns")
    own, _ = predict_table(tmp_path, run, "own", *asked)
    other, about = predict_table(tmp_path, run, "other", *asked, "engine=openvino")
    assert (about["engine"], [one["name"] for one in about["engines"]]) == ("openvino", ["openvino"])
    for first, second in zip(own, other, strict=True):
        assert float(first["p_nodule"]) == pytest.approx(float(second["p_nodule"]), abs=1e-4)
        maps = [read_heat(tmp_path / row["map"]) for row in (first, second)]
        np.testing.assert_allclose(*maps, atol=1e-3)
    metrics = [score_again(run, split="test", engine=name)["test"] for name in ("tensorflow", "openvino")]
    assert metrics[0]["log_loss"] == pytest.approx(metrics[1]["log_loss"], abs=1e-4)


def read_heat(path):
    import nibabel as nib

    return np.asarray(nib.load(path).dataobj)


@needs_openvino
def test_batches_of_a_split_are_scored_in_order(runs):
    from voxlift.app.runs.cohort import reopen_split
    from voxlift.app.runs.configuration import load_settings

    run = runs["volume3d"]
    volumes = reopen_split(load_settings(run), run, split="test").prepared("test")
    network = load_network(run.network)
    found = ask(run, inputs_of(run), "openvino")
    expected = network.predict(evaluation_volumes(volumes, batch_size=3), verbose=0)
    np.testing.assert_allclose(
        found.scorer.predict(evaluation_volumes(volumes, batch_size=3)), expected, atol=1e-4
    )
