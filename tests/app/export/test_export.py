"""An exported model scores as its run does, also where Voxlift is not installed."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from scipy.special import softmax

from commands import compose_command
from voxlift.app.cli.export import export, read_settings
from voxlift.app.config import SettingsError
from voxlift.app.errors import UserError
from voxlift.app.evaluation.calibration import Calibration, apply_calibration
from voxlift.app.evaluation.scores import Scores
from voxlift.app.export import export_run
from voxlift.app.export.contract import rounded_dtype
from voxlift.app.export.score_image import describe_classes, prepare_image
from voxlift.app.files import read_rows
from voxlift.app.inference.conversion import Difference, convert_to_float32
from voxlift.app.runs.folder import RunFolder
from voxlift.data_pipelines.geometry import to_tensor_axes
from voxlift.data_pipelines.preprocess.prepare import prepare_volume
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.tables.regions import Region

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FORMATS = ["saved_model", "onnx"]


def export_to(folder, run, file_format):
    settings = (f"run={run.path}", f"output={folder}", f"format={file_format}")
    assert export(read_settings(compose_command("export", *settings))) == 0
    return read_json(folder / "contract.json")


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("name", ["slice2d", "slab25d", "volume3d"])
def test_an_export_scores_as_the_run_and_its_contract_follows_the_schema(
    name, file_format, runs, tmp_path, capsys
):
    contract = export_to(tmp_path / "out", runs[name], file_format)
    jsonschema.validate(contract, read_json(tmp_path / "out" / "contract.schema.json"))
    assert contract["checked"]["volumes"] == 4
    assert contract["checked"]["largest_probability_difference"] < 1e-5
    assert contract["model"]["input"]["shape"] == [None, 8, 12, 16, 1]
    assert contract["classes"] == ["vessel", "nodule"]
    assert contract["threshold"] == read_json(runs[name].metrics)["threshold"]
    assert capsys.readouterr().out.splitlines()[-1].endswith(f" {tmp_path}/out")


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_example_scores_an_image_without_voxlift(file_format, runs, tmp_path):
    run = runs["volume3d"]
    export_to(tmp_path / "out", run, file_format)
    script = tmp_path / "out" / "score_image.py"
    assert not re.search(r"\b(voxlift|app|data_pipelines|models)\b.*\bimport\b", script.read_text("utf-8"))
    row = read_rows(run.predictions)[0]
    # An isolated interpreter: neither the working directory nor PYTHONPATH contains Voxlift's source.
    done = subprocess.run(
        [sys.executable, str(script), row["image"]],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = dict(line.split("\t")[:2] for line in done.stdout.splitlines())
    assert float(printed["nodule"]) == pytest.approx(float(row["p_nodule"]), abs=1e-4)
    threshold = read_json(run.metrics)["threshold"]
    assert printed["decision"] == ("nodule" if float(row["p_nodule"]) >= threshold else "vessel")


def test_a_bias_is_in_the_contract_and_in_the_example(runs, tmp_path):
    run = RunFolder(shutil.copytree(runs["volume3d"].path, tmp_path / "run"))
    metrics, fitted = read_json(run.metrics), Calibration(1.5, (-0.75, 0.75))
    metrics["calibration"] |= {"at_bound": False, **fitted.as_json()}
    run.metrics.write_text(json.dumps(metrics), encoding="utf-8")
    contract = export_to(tmp_path / "out", run, "onnx")
    jsonschema.validate(contract, read_json(tmp_path / "out" / "contract.schema.json"))
    assert contract["contract"] == 5
    logits = np.array([0.3, -0.4])
    cells = [line.split("\t") for line in describe_classes(logits, contract)[:2]]
    scores = Scores(["s"], [0], softmax(logits)[None], contract["classes"])
    expected = apply_calibration(scores, fitted).probabilities[0]
    assert [float(one[2].split()[-1]) for one in cells] == pytest.approx(expected, abs=1e-6)


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
def test_the_example_preprocesses_as_voxlift_does(settings, runs):
    preprocess = Preprocess(**settings)
    contract = {**asdict(preprocess), "rounded_to": rounded_dtype(preprocess)}
    for row in read_rows(runs["volume3d"].predictions)[:4]:  # the phantom stores several orientations
        expected = to_tensor_axes(prepare_volume(row["image"], preprocess).voxels)
        difference = np.abs(prepare_image([row["image"]], contract)[0] - expected)
        assert difference.max() < 2e-3 * np.ptp(expected)  # float16 has eleven significant bits
        assert difference.mean() < 2e-4 * np.ptp(expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"mask": ("crop", "channel"), "mask_margin_mm": 6.0, "spacing": (4, 3, 3), "shape": (9, 12, 14)},
        {"mask": ("channel",), "spacing": (8, 5, 4), "shape": (8, 12, 16), "axcodes": "LPS"},
        {"mask": ("crop", "blank"), "mask_components": "largest", "zscore": "whole", "shape": (20, 21, 22)},
        {"mask": ("crop",), "mask_margin_mm": None, "shape": (12, 16, 20), "axcodes": None},
    ],
)
def test_the_example_takes_masks_and_centres_as_voxlift_does(settings, runs, tmp_path):
    preprocess = Preprocess(window_hu=(-1000, 400), **settings)
    contract = {**asdict(preprocess), "rounded_to": rounded_dtype(preprocess)}
    for row in read_rows(runs["volume3d"].predictions)[:3]:
        image = Path(row["image"])
        mask = image.parent.parent / f"{image.parent.name}-masks" / f"{image.name.split('.')[0]}_mask.nii.gz"
        table = {one["file"]: one for one in read_rows(image.parent / "labels.csv")}
        centre = tuple(float(table[image.name][axis]) for axis in "xyz")
        smaller = tmp_path / "smaller.nii.gz"  # another grid in the same world
        nib.save(nib.load(mask).slicer[1:, 2:-1, :-1], smaller)
        regions = [Region(mask=mask), Region(mask=smaller)]
        regions += [Region(centre=centre)] if preprocess.mask == ("crop",) else []
        for region in regions:
            expected = to_tensor_axes(prepare_volume(image, preprocess, region).voxels)
            place = np.array(region.centre) if region.mask is None else region.mask
            found = prepare_image([image], contract, place)[0]
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() < 2e-3 * np.ptp(expected)


def test_a_network_of_mixed_precision_is_exported_to_onnx_in_float32():
    import keras

    from voxlift.models import to_3d
    from voxlift.models.baselines import build_baseline

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = to_3d(build_baseline("cnn", input_shape=(8, 9, 1), classes=2, filters=(4, 5, 6)), depth=7)
    finally:
        keras.config.set_dtype_policy("float32")
    voxels = np.random.default_rng(0).normal(size=(2, 7, 8, 9, 1)).astype("float32")
    before = np.asarray(network(voxels), "float32")
    assert convert_to_float32(network)
    assert not convert_to_float32(network)
    after = np.asarray(network(voxels))
    assert after.dtype == np.float32
    np.testing.assert_allclose(after, before, atol=3e-2)


def test_a_model_with_other_scores_is_refused_and_nothing_is_left(runs, tmp_path, monkeypatch):
    difference = Difference(volumes=4, scores=9.0, relative=0.5, probabilities=0.5)
    monkeypatch.setattr(export_run, "compare_converted", lambda *_, **__: difference)
    with pytest.raises(UserError, match=r"5\.0e-01"):
        export_to(tmp_path / "out", runs["slice2d"], "saved_model")
    assert not (tmp_path / "out").exists()


def test_all_problems_of_the_settings_are_reported_together(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SettingsError) as caught:
        read_settings(compose_command("export", "format=torch", f"output={tmp_path}"))
    lines = str(caught.value).splitlines()
    for key in ("format", "run", "output"):
        assert any(line.strip(" -").startswith(key) for line in lines), key


def test_a_run_without_its_model_is_refused_and_nothing_is_left(runs, tmp_path):
    bare = RunFolder(tmp_path / "bare")
    shutil.copytree(runs["slice2d"].path, bare.path)
    bare.model.unlink()
    with pytest.raises(SettingsError, match=bare.model.name):
        export_to(tmp_path / "out", bare, "saved_model")
    assert not (tmp_path / "out").exists()
