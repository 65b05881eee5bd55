"""Training the trials of a comparison: resume after a kill, reuse finished runs, report failures.

A small script stands in for the training, so that a kill can be aimed; a slow test kills real ones.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from commands import own_environment
from tiny import TINY
from voxlift.app.comparison import run as comparison_run
from voxlift.app.comparison.plan import Plan
from voxlift.app.comparison.run import run_trials
from voxlift.app.comparison.selection import select_trials
from voxlift.app.comparison.trial import build_trials
from voxlift.app.config import TrainSettings

STAND_IN = """
import os, pathlib, sys, time
overrides = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
run = pathlib.Path(overrides["run_dir"].strip('"'))
behaviour = pathlib.Path(__file__).with_name(run.name)
with open(pathlib.Path(__file__).with_name("calls"), "a") as calls:
    calls.write(run.name + "\\n")
run.mkdir(parents=True)
(run / "half").write_text("written before the end")
what = behaviour.read_text(encoding="utf-8") if behaviour.exists() else ""
if what == "wait":
    time.sleep(60)
if what == "die":
    os.kill(os.getpid(), 9)
if what.isdigit():
    sys.stderr.write("a warning\\nerror: the reason of " + run.name + ".\\n")
    sys.exit(int(what))
(run / "metrics.json").write_text("{}")
"""
DRIVER = """
import sys
from pathlib import Path
from voxlift.app.comparison import run
from voxlift.app.comparison.plan import Plan
from voxlift.app.comparison.trial import build_trials
from voxlift.app.config import TrainSettings
run.TRAIN = (sys.executable, sys.argv[1])
folder = Path(sys.argv[2])
choose = lambda name: [f"model={name}"]
trials = build_trials(["a", "b"], [0, 1], folds=[0], folder=folder, model_overrides=choose)
settings = tuple(TrainSettings() for _ in trials)
plan = Plan(folder, tuple(trials), settings, ("a", "b"), {})
run.run_trials(plan, runs_folder=folder / "none")
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    path = tmp_path / "stand_in" / "train.py"
    path.parent.mkdir()
    path.write_text(STAND_IN)
    monkeypatch.setattr(comparison_run, "TRAIN", (sys.executable, str(path)))
    return path


def plan_of(folder, names=("a", "b"), seeds=(0, 1)):
    trials = build_trials(
        names, seeds, folds=[0], folder=folder, model_overrides=lambda name: [f"model={name}"]
    )
    return Plan(folder, tuple(trials), tuple(TrainSettings() for _ in trials), tuple(names), {})


def calls_of(stand_in):
    calls = stand_in.with_name("calls")
    return calls.read_text(encoding="utf-8").split() if calls.exists() else []


def run_all(folder, **options):
    return run_trials(plan_of(folder, **options), runs_folder=folder / "none")


def test_every_trial_is_trained_once_and_then_reused(stand_in, tmp_path):
    folder = tmp_path / "with space, and comma"
    first, second = run_all(folder), run_all(folder)
    assert calls_of(stand_in) == ["a-seed0", "b-seed0", "a-seed1", "b-seed1"]
    assert [outcome.is_reused for outcome in first + second] == [False] * 4 + [True] * 4
    with (folder / "trials.csv").open() as file:
        assert [(row["model"], row["seed"], row["state"]) for row in csv.DictReader(file)] == [
            ("a", "0", "reused"), ("b", "0", "reused"), ("a", "1", "reused"), ("b", "1", "reused"),
        ]  # fmt: skip


@pytest.mark.parametrize("killed_in", ["a-seed0", "b-seed0", "b-seed1"])
def test_a_killed_comparison_resumes_with_the_trial_that_was_interrupted(killed_in, stand_in, tmp_path):
    folder = tmp_path / "compared"
    stand_in.with_name(killed_in).write_text("wait")
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    child = subprocess.Popen(
        [sys.executable, str(driver), str(stand_in), str(folder)],
        env=own_environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (folder / "runs" / killed_in / "half").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    before = calls_of(stand_in)
    stand_in.with_name(killed_in).unlink()
    outcomes = run_all(folder)
    every = ["a-seed0", "b-seed0", "a-seed1", "b-seed1"]
    assert [outcome.status for outcome in outcomes] == [0] * 4
    assert calls_of(stand_in)[len(before) :] == every[every.index(killed_in) :]


def test_a_failed_training_is_reported_and_the_others_are_trained(stand_in, tmp_path, capsys):
    stand_in.with_name("b-seed0").write_text("70")
    outcomes = run_all(tmp_path / "compared")
    assert [outcome.status for outcome in outcomes] == [0, 70, 0, 0]
    assert outcomes[1].reason == "the reason of b-seed0."
    assert "a warning" in capsys.readouterr().err
    selected = select_trials(plan_of(tmp_path / "compared"), outcomes)
    assert [trial.run.path.name for trial in selected.trials] == ["a-seed1", "b-seed1"]
    assert selected.is_comparison
    failure, left_out = selected.notes
    assert all(part in failure for part in ("b-seed0", "70", "the reason of b-seed0."))
    assert "1 of 2" in left_out


def test_a_model_that_never_finishes_is_left_out_of_the_comparison(stand_in, tmp_path):
    for seed in (0, 1):
        stand_in.with_name(f"b-seed{seed}").write_text("die")
    plan = plan_of(tmp_path / "compared", names=("a", "b", "c"))
    outcomes = run_trials(plan, runs_folder=tmp_path / "none")
    selected = select_trials(plan, outcomes)
    assert {trial.model for trial in selected.trials} == {"a", "c"}
    assert len(selected.trials) == 4
    assert "SIGKILL" in selected.notes[0]
    assert selected.notes[2].endswith(": b.")
    few = select_trials(plan, [outcomes[0]])
    assert not few.is_comparison


def test_where_every_model_is_refused_the_rest_is_not_tried(stand_in, tmp_path):
    for name in ("a", "b"):
        stand_in.with_name(f"{name}-seed0").write_text("2")
    outcomes = run_all(tmp_path / "compared")
    assert calls_of(stand_in) == ["a-seed0", "b-seed0"]
    assert select_trials(plan_of(tmp_path), outcomes).notes[-1].startswith("2 trainings")


def test_an_interrupted_training_interrupts_the_comparison(stand_in, tmp_path):
    stand_in.with_name("a-seed0").write_text("130")
    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path / "compared")


def test_a_training_that_another_process_still_runs_is_awaited(stand_in, tmp_path, capsys):
    fcntl = pytest.importorskip("fcntl")
    folder = tmp_path / "compared"
    (folder / "runs").mkdir(parents=True)
    orphan = (
        "import time, pathlib; time.sleep(1); p = pathlib.Path({!r}); p.mkdir(); (p / 'metrics.json').touch()"
    )
    with (folder / "runs" / ".a-seed0.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code = orphan.format(str(folder / "runs" / "a-seed0"))
        child = subprocess.Popen([sys.executable, "-c", code], pass_fds=(lock.fileno(),))
    outcomes = run_all(folder)
    child.wait()
    assert "1/4  a-seed0: another process" in capsys.readouterr().out
    assert outcomes[0].is_reused
    assert "a-seed0" not in calls_of(stand_in)


@pytest.mark.slow
def test_a_real_comparison_killed_at_several_points_ends_like_an_undisturbed_one(tmp_path):
    command = [
        sys.executable,
        "-m",
        "voxlift.app.cli.compare",
        "models=[slice2d,volume3d]",
        *TINY,
        "data.subjects=24",
    ]
    environment = own_environment()

    def compare(folder, *, kill_when=None):
        child = subprocess.Popen(
            [*command, f"run_dir={folder}"], cwd=tmp_path, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        while kill_when is not None and child.poll() is None and not (folder / "runs" / kill_when).exists():
            time.sleep(0.01)
        if kill_when is not None and child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        return child.wait()

    killed, calm = tmp_path / "killed", tmp_path / "calm"
    for moment in ("slice2d-seed0/history.csv", "volume3d-seed0/config.yaml", "volume3d-seed0/model.keras"):
        assert compare(killed, kill_when=moment) == -signal.SIGKILL
    assert compare(killed) == 0
    assert compare(calm) == 0
    first, second = (
        json.loads((folder / "comparison.json").read_text(encoding="utf-8")) for folder in (killed, calm)
    )
    assert first["pairs"] == second["pairs"]
