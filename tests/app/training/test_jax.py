"""A whole training on the JAX backend, in a process of its own: a process has one backend."""

import importlib.util
import json
import subprocess
import sys
import time

import numpy as np
import pytest

from commands import own_environment, run_python
from tiny import TINY, places_in
from voxlift.app.files import read_rows
from voxlift.app.runs.folder import RunFolder
from voxlift.app.training.checkpoints import read_arrays

ON_JAX = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra jax")
@pytest.mark.parametrize("model", ["volume3d", "slice2d"])
def test_a_training_on_jax_trains_scores_and_reports(model, tmp_path):
    arguments = [*TINY, *places_in(tmp_path, "run"), f"model={model}"]
    done = run_python("-m", "voxlift.app.cli.train", *arguments, **ON_JAX)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    run = RunFolder(tmp_path / "run")
    assert json.loads(run.environment.read_text(encoding="utf-8"))["backend"] == "jax"
    metrics, history = json.loads(run.metrics.read_text(encoding="utf-8")), read_rows(run.history)
    assert metrics["test"]["n"] == 4
    assert np.isfinite([float(row["loss"]) for row in history]).all()
    best = history[metrics["cost"]["best_epoch"] - 1]  # whose weights the saved model has
    assert metrics["val"]["log_loss"] == pytest.approx(float(best["val_loss"]), abs=1e-5)
    assert run.model.exists()
    assert run.preflight.exists()
    page = run.report.read_text(encoding="utf-8")
    assert "Grad-CAM" in page
    assert page.count("data:image/png") >= 2  # the maps of the worst and the surest cases


def start(folder, *arguments):
    own = arguments if arguments[0].startswith("resume=") else [*TINY, *places_in(folder), *arguments]
    compiled = {  # once for all processes of a test
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "voxlift.app.cli.train", *own],
        env=own_environment(**compiled, **ON_JAX),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child):
    _, named = child.communicate(timeout=3600)
    assert child.returncode == 0, named[-2000:]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra jax")
def test_a_killed_training_on_jax_resumes_to_the_end_of_an_uninterrupted_one(tmp_path):
    whole, killed = (RunFolder(tmp_path / name) for name in ("whole", "killed"))
    options = ["trainer.epochs=4", "trainer.checkpoint_steps=1", "trainer.ema=0.9", "preflight.enabled=false"]
    finish(start(tmp_path, *options, f"run_dir={whole.path}"))
    child = start(tmp_path, *options, f"run_dir={killed.path}")
    while not (killed.checkpoints / "at-0001-000001.npz").exists():  # within an epoch
        assert child.poll() is None
        time.sleep(0.005)
    child.kill()
    child.communicate()
    assert not killed.is_finished
    finish(start(tmp_path, f"resume={killed.path}"))
    for column in ("loss", "val_loss", "val_auc", "learning_rate"):
        found, expected = ([float(row[column]) for row in read_rows(run.history)] for run in (killed, whole))
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=column)
    states = [read_arrays(max(run.checkpoints.glob("at-*.npz")))[0] for run in (killed, whole)]
    assert states[0].keys() == states[1].keys()
    for name, values in states[0].items():
        np.testing.assert_allclose(values, states[1][name], atol=1e-6, err_msg=name)
