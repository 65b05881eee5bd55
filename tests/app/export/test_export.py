"""An exported model scores as the run does, also where Voxlift is not installed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from commands import compose_command
from voxlift.app.cli.command import reader
from voxlift.app.cli.export import export, find_problems
from voxlift.app.config import ExportSettings, SettingsError
from voxlift.app.export.score_image import prepare
from voxlift.app.export.write import convert_to_float32
from voxlift.app.files import read_rows
from voxlift.app.runs.folder import RunFolder
from voxlift.data_pipelines.geometry import to_tensor_axes
from voxlift.data_pipelines.preprocess.prepare import prepare_volume
from voxlift.data_pipelines.preprocess.settings import Preprocess

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FORMATS = ["saved_model", "onnx"]


def settings_for(*overrides):
    cfg = compose_command("export", *overrides)
    return reader(ExportSettings, find_problems)(cfg)


def exported(run, folder, file_format):
    assert export(settings_for(f"run={run.path}", f"output={folder}", f"format={file_format}")) == 0
    return json.loads((folder / "contract.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("name", ["slice2d", "slab25d", "volume3d"])
def test_an_export_scores_as_the_run_and_its_contract_keeps_to_the_schema(
    name, file_format, runs, tmp_path, capsys
):
    import jsonschema

    contract = exported(runs[name], tmp_path / "out", file_format)
    jsonschema.validate(
        contract, json.loads((tmp_path / "out" / "contract.schema.json").read_text(encoding="utf-8"))
    )
    assert contract["checked"]["largest_probability_difference"] < 1e-5
    assert contract["model"]["input"]["shape"] == [None, 8, 12, 16, 1]
    assert contract["classes"] == ["vessel", "nodule"]
    assert contract["threshold"] == json.loads(runs[name].metrics.read_text(encoding="utf-8"))["threshold"]
    shown = capsys.readouterr().out.strip().splitlines()
    assert "scores differ by at most" in " ".join(shown)
    assert shown[-1] == f"Export in {tmp_path}/out"


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_example_scores_an_image_without_voxlift(file_format, runs, tmp_path):
    run = runs["volume3d"]
    exported(run, tmp_path / "out", file_format)
    row = read_rows(run.predictions)[0]
    # An isolated interpreter: neither the working directory nor PYTHONPATH leads to Voxlift's source.
    answer = subprocess.run(
        [sys.executable, str(tmp_path / "out" / "score_image.py"), row["image"]],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    said = dict(line.split("\t")[:2] for line in answer.stdout.splitlines())
    assert float(said["nodule"]) == pytest.approx(float(row["p_nodule"]), abs=1e-4)
    threshold = json.loads(run.metrics.read_text(encoding="utf-8"))["threshold"]
    assert said["decision"] == ("nodule" if float(row["p_nodule"]) >= threshold else "vessel")
    text = (tmp_path / "out" / "score_image.py").read_text(encoding="utf-8")
    assert not [
        name
        for name in ("app", "data_pipelines", "models")
        if f"import {name}" in text or f"from {name}" in text
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"spacing": (8, 5, 4), "shape": (8, 12, 16), "window_hu": (-1000, 400)},
        {"shape": (40, 44, 60), "zscore": "foreground", "clip_percentiles": (0.5, 99.5)},
        {"spacing": (2, 2, 2), "shape": (30, 20, 50), "zscore": "whole", "axcodes": "LPS"},
        {"shape": (9, 13, 17), "fit": "resize", "pad": 0.0},
        {"shape": (20, 30, 30), "spacing": (1, 1, 1), "axcodes": None},
    ],
)
def test_the_examples_preprocessing_is_ours(settings, runs):
    from dataclasses import asdict

    from voxlift.app.export.contract import rounding

    how = Preprocess(**settings)
    for row in read_rows(runs["volume3d"].predictions)[:4]:  # the phantom stores many orientations
        ours = to_tensor_axes(prepare_volume(row["image"], how).voxels)
        theirs = prepare([row["image"]], {**asdict(how), "rounded_to": rounding(how)})[0]
        scale = np.ptp(ours)
        assert np.abs(theirs - ours).max() < 2e-3 * scale  # float16 keeps eleven bits
        assert np.abs(theirs - ours).mean() < 2e-4 * scale


def test_a_network_of_mixed_precision_is_exported_to_onnx_in_float32():
    import keras

    from voxlift.models.baselines import build_baseline
    from voxlift.models.lifting import plan_lift

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = plan_lift(
            build_baseline("cnn", input_shape=(8, 8, 1), classes=2, filters=(4, 5, 6)), depth=8
        ).build()
    finally:
        keras.config.set_dtype_policy("float32")
    voxels = np.random.default_rng(0).normal(size=(2, 8, 8, 8, 1)).astype("float32")
    before = np.asarray(network(voxels), "float32")
    assert convert_to_float32(network)
    assert not convert_to_float32(network)
    after = np.asarray(network(voxels))
    assert after.dtype == np.float32
    np.testing.assert_allclose(after, before, atol=3e-2)


def test_a_model_that_scores_otherwise_is_refused_and_leaves_nothing(runs, tmp_path, monkeypatch):
    from voxlift.app.errors import UserError
    from voxlift.app.export import write as writing

    monkeypatch.setattr(
        writing,
        "compare_written",
        lambda *_, **__: writing.Difference(volumes=4, scores=9.0, relative=0.5, probabilities=0.5),
    )
    with pytest.raises(UserError, match=r"it differs by 5\.0e-01"):
        exported(runs["slice2d"], tmp_path / "out", "saved_model")
    assert not (tmp_path / "out").exists()


def test_mistakes_are_told_at_once(runs, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SettingsError) as caught:
        settings_for("format=torch", f"output={tmp_path}")
    for told in (
        "format: expected one of saved_model, onnx",
        "run: expected",
        "expected a new or empty folder",
    ):
        assert told in str(caught.value)
    bare = RunFolder(tmp_path / "bare")
    shutil.copytree(runs["slice2d"].path, bare.path)
    bare.model.unlink()
    with pytest.raises(SettingsError, match="is not in it"):
        exported(bare, tmp_path / "out", "saved_model")
    assert not Path(tmp_path / "out").exists()
