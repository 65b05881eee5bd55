"""A killed study keeps its measurements; settings below a space need no plus sign."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from voxlift.app.cli.study import append_open_key

COMMAND = [
    sys.executable,
    "-m",
    "voxlift.app.cli.study",
    "study=complexity",
    "study.models=[volume3d]",
    "study.scales=[0.75,1.0,1.25]",
    "study.timed_steps=1",
    "data.subjects=24",
    "preprocess.shape=[8,12,16]",
    "preprocess.spacing=[8,5,4]",
    "model.filters=[4,6,8]",
    "precision=float32",
    "run_dir=out",
]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}


def measurements(folder):
    return {
        path.parent.name: path.stat().st_mtime_ns for path in folder.glob("out/measurements/*/answer.json")
    }


@pytest.mark.slow
def test_a_killed_study_keeps_its_measurements(tmp_path):
    with subprocess.Popen(COMMAND, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + 240
        while not measurements(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.1)
        first.send_signal(signal.SIGKILL)
    before = measurements(tmp_path)
    assert before
    again = subprocess.run(
        COMMAND, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=500, check=False
    )
    assert again.returncode == 0, again.stderr
    after = measurements(tmp_path)
    assert len(after) == 3
    assert {name: after[name] for name in before} == before
    assert again.stdout.strip().splitlines()[-1] == "Results in out, report out/report.html"


def test_only_a_space_and_varied_settings_need_no_plus_sign():
    assert append_open_key("study.vary.model.head=[pool]") == "++study.vary.model.head=[pool]"
    assert append_open_key("study.trials=3") == "study.trials=3"
