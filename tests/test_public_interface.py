"""`import voxlift`: light, lazy, and complete; commands as functions."""

import json
import subprocess
import sys

import numpy as np
import pytest

import voxlift
from tiny import TINY, places_in
from voxlift.app.files import read_rows, write_rows

HEAVY = ("keras", "tensorflow", "jax", "torch", "sklearn", "matplotlib", "nibabel", "SimpleITK", "numpy")


def test_importing_the_package_brings_in_nothing_heavy():
    code = f"import sys, voxlift; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_every_public_name_is_there_documented_and_complete():
    for name in voxlift.__all__:
        assert getattr(voxlift, name).__doc__, name
        assert name in dir(voxlift)
        assert name in voxlift.__doc__, name


def test_keras_is_imported_without_the_start_lines_of_tensorflow():
    code = "from voxlift import keras; print(keras.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("keras", "")


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="plan_lfit"):
        _ = voxlift.plan_lfit


def test_volumes_and_lift_together(tmp_path):
    from voxlift.data_pipelines.phantom.write import write_phantom

    write_phantom(tmp_path, task="nodule", subjects=4, seed=0)
    file = next(tmp_path.rglob("*.nii.gz"))
    volume = voxlift.load_volume(file)
    assert volume.affine.shape == (4, 4)
    tensor = voxlift.prepare_tensor(file, voxlift.Preprocess(spacing=(8.0, 5.0, 4.0), shape=(8, 12, 16)))
    assert (tensor.shape, tensor.dtype) == ((8, 12, 16, 1), np.float32)


def test_a_training_opens_as_a_run_and_a_mistake_raises_with_its_key(tmp_path, capsys):
    run = voxlift.train("model=slice2d", *TINY, *places_in(tmp_path), run_dir=tmp_path / "run")
    assert f"Results in {tmp_path / 'run'}" in capsys.readouterr().out
    assert run.metrics == json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match=r"trainer\.epochs"):
        voxlift.train("trainer.epochs=none", run_dir=tmp_path / "other")


@pytest.mark.slow
def test_other_subjects_are_scored_with_a_run_and_those_it_was_trained_on_refused(tmp_path):
    places = places_in(tmp_path)
    run = voxlift.train("model=linear", *TINY, *places, run_dir=tmp_path / "run")
    other = voxlift.write_phantom(tmp_path / "other", task="nodule", subjects=12, seed=7)
    rows = [row | {"participant_id": f"new-{row['participant_id']}"} for row in read_rows(other)]
    write_rows(other.with_name("new.csv"), rows)
    found = voxlift.evaluate(run, f"data.table={other.with_name('new.csv')}", output=tmp_path / "out")
    assert found.metrics["external"]["subjects"] == 12
    assert found.report.stat().st_size > 10_000
    own = next((tmp_path / "data").rglob("labels.csv"))
    with pytest.raises(ValueError, match=r"sub-"):
        voxlift.evaluate(run.folder.path, f"data.table={own}", output=tmp_path / "leak")


def test_a_study_opens_with_its_table(tmp_path):
    given = ("study.auc=[0.8,0.85]", "study.correlation=0.5", "study.prevalence=0.5")
    found = voxlift.study("sample_size", *given, run_dir=tmp_path / "size")
    assert found.table
    assert found.results["recommendation"]
    assert found.report.exists()


@pytest.mark.slow
def test_a_comparison_opens_with_its_runs_and_its_page(tmp_path):
    found = voxlift.compare(["slice2d", "volume3d"], *TINY, *places_in(tmp_path), run_dir=tmp_path / "both")
    assert set(found.results["models"]) == {"slice2d", "volume3d"}
    assert [run.settings.model.name for run in found.runs] == ["slice2d", "volume3d"]
    assert found.report.stat().st_size > 10_000
