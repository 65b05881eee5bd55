"""A whole training on the JAX engine, in a process of its own: the engine is chosen once per process."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from app.runs import RunFolder, read_rows

TINY = [
    "data.subjects=16",
    "preprocess.shape=[8,12,16]",
    "preprocess.spacing=[8,5,4]",
    "model.filters=[4,6,8]",
    "trainer.epochs=2",
    "trainer.batch_size=4",
    "precision=float32",
    "splits.val=0.25",
    "splits.test=0.25",
]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra jax")
@pytest.mark.parametrize("model", ["volume3d", "slice2d"])
def test_a_training_on_jax_trains_scores_and_reports(model, tmp_path):
    places = [f"data.folder={tmp_path}/data", f"cache.folder={tmp_path}/cache", f"run_dir={tmp_path}/run"]
    done = subprocess.run(
        [sys.executable, "-m", "app.train", *TINY, *places, f"model={model}"],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    run = RunFolder(tmp_path / "run")
    assert json.loads(run.environment.read_text(encoding="utf-8"))["backend"] == "jax"
    metrics, history = json.loads(run.metrics.read_text(encoding="utf-8")), read_rows(run.history)
    assert metrics["test"]["n"] == 4
    assert np.isfinite([float(row["loss"]) for row in history]).all()
    best = history[metrics["cost"]["best_epoch"]]  # whose weights the saved model has
    assert metrics["val"]["log_loss"] == pytest.approx(float(best["val_loss"]), abs=1e-5)
    assert run.model.exists()
    assert run.preflight.exists()
    page = run.report.read_text(encoding="utf-8")
    assert "Grad-CAM" in page
    assert page.count("data:image/png") >= 2  # the maps of the worst and the surest cases
