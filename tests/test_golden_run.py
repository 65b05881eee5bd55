"""The golden run: a change of structure changes no bit of the scores and metrics of six small trainings.

The digests were recorded on one type of processor with one set of library versions; elsewhere the test is
skipped. `VOXLIFT_RECORD=1` records them again, after a change that is meant to change numbers.
"""

import csv
import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from commands import run_python

RECORD = Path(__file__).with_name("golden_run.json")
MODELS = ("model=slice2d", "model=volume3d", "experiment=inflated")
TASKS = ("nodule", "chirality")
SETTINGS = (
    "data.subjects=80",
    "trainer.epochs=3",
    "trainer.batch_size=8",
    "device=cpu",
    "precision=float32",
    "deterministic=true",
    "logger=none",
)


def describe_machine():
    """What the bits of a float32 training on a CPU depend on: processor, cores, versions."""
    file = Path("/proc/cpuinfo")
    lines = (
        file.read_text(encoding="utf-8").splitlines() if file.exists() else [f"flags: {platform.processor()}"]
    )
    flags = next(line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    versions = {name: version(name) for name in ("tensorflow", "keras", "numpy", "scikit-learn", "scipy")}
    return {"flags": hashlib.sha256(flags.encode()).hexdigest(), "cores": os.cpu_count(), **versions}


def without_costs(value):
    """A value of metrics.json without seconds, bytes and prose, and without `use`, which came later."""
    if isinstance(value, dict):
        names = [name for name in value if "seconds" not in name and name not in {"peak_memory_bytes", "use"}]
        return {name: without_costs(value[name]) for name in names if not isinstance(value[name], str)}
    return [without_costs(one) for one in value] if isinstance(value, list) else value


def digest_run(run):
    """Digests of the scores and of the metrics of a run, wherever its images lie."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = [{**row, "image": Path(row["image"]).name} for row in csv.DictReader(file)]
    metrics = without_costs(json.loads((run / "metrics.json").read_text(encoding="utf-8")))
    metrics["cost"]["best_epoch"] -= metrics["cost"].pop("first_epoch")  # recorded when the first was 0
    values = {"predictions": rows, "metrics": metrics}
    return {name: hashlib.sha256(json.dumps(value).encode()).hexdigest() for name, value in values.items()}


@pytest.mark.slow
def test_scores_and_metrics_are_bit_by_bit_those_that_were_recorded(tmp_path):
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    is_recording = os.environ.get("VOXLIFT_RECORD") == "1"
    if not is_recording and recorded["machine"] != describe_machine():
        pytest.skip(f"recorded on another machine or with other versions: {recorded['machine']}")
    found = {}
    for task in TASKS:
        for model in MODELS:
            run = tmp_path / f"{task}-{model.partition('=')[2]}"
            command = ("-m", "voxlift.app.cli.train", model, f"data.task={task}", f"run_dir={run}", *SETTINGS)
            done = run_python(*command, cwd=tmp_path, timeout=600)
            assert done.returncode == 0, done.stderr
            found[run.name] = digest_run(run)
    if is_recording:
        RECORD.write_text(
            json.dumps({"machine": describe_machine(), "runs": found}, indent=1) + "\n", encoding="utf-8"
        )
    assert found == json.loads(RECORD.read_text(encoding="utf-8"))["runs"]
