"""Trainings by two processes on the loopback: as one process trains, and what a killed process leaves."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from commands import own_environment
from tiny import places_in
from users_network import MODULE
from voxlift.app.files import read_rows
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.exit_status import LOST, USER_ERROR
from voxlift.app.training.checkpoints import read_arrays

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra jax"),
]
TINY = [
    "data.subjects=16",
    "preprocess.shape=[12,14,16]",
    "preprocess.spacing=[5,5,4]",
    "model.filters=[2,3,4]",
    "trainer.batch_size=4",
    "trainer.ema=0.9",
    "optimizer.clip_norm=0.1",
    "precision=float32",
    "splits.val=0.25",
    "splits.test=0.25",
    "preflight.enabled=false",
    "device=cpu",
]
COUNTED = ("loss", "val_loss", "val_auc", "learning_rate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hosts")


def environment(folder, **more):
    """What is compiled for one process serves the next: JAX spends most of these tests on that."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return own_environment(**cache, **more)


def arguments_for(folder, name, *overrides):
    return [*TINY, *places_in(folder, name), *overrides]


def start_both(folder, *arguments, own=None, only=None, cwd=None):
    """Start both processes, each with its own arguments, or only one of them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    hosts = [f"hosts.coordinator=127.0.0.1:{port}", "hosts.count=2"]
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "voxlift.app.cli.train", *arguments, *hosts, f"hosts.index={index}"),
                *(own or {}).get(index, ()),
            ],
            env=environment(folder),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
        if only in (None, index)
    ]


def ends_of(both):
    """Exit statuses, and what was output on stdout and on stderr."""
    output = [one.communicate(timeout=3600) for one in both]
    return [one.returncode for one in both], [out for out, _ in output], [err for _, err in output]


def train_alone(folder, name, *overrides):
    done = subprocess.run(
        [sys.executable, "-m", "voxlift.app.cli.train", *arguments_for(folder, name, *overrides)],
        env=environment(folder, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return RunFolder(folder / name)


def train_together(folder, name, *overrides):
    statuses, shown, named = ends_of(
        start_both(folder, *arguments_for(folder, name, "strategy=hosts", *overrides))
    )
    assert statuses == [0, 0], named
    assert named == ["", ""]
    assert shown[0].rstrip().endswith(str(folder / name))
    assert "host 0" in shown[1]
    return RunFolder(folder / name)


def assert_same(ours, theirs, *, tolerance=2e-5):
    """Equal history, predictions and last state within rounding."""
    rows = [read_rows(run.history) for run in (ours, theirs)]
    assert len(rows[0]) == len(rows[1])
    for column in COUNTED:
        found, expected = ([float(row[column]) for row in each] for each in rows)
        np.testing.assert_allclose(found, expected, atol=tolerance, err_msg=column)
    scores = [[float(row["p_vessel"]) for row in read_rows(run.predictions)] for run in (ours, theirs)]
    np.testing.assert_allclose(*scores, atol=tolerance)
    states = [read_arrays(max(run.checkpoints.glob("at-*.npz")))[0] for run in (ours, theirs)]
    assert states[0].keys() == states[1].keys()
    for name, values in states[0].items():
        np.testing.assert_allclose(values, states[1][name], atol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def uninterrupted(folder):
    """One process's training of five epochs, to which the others are compared."""
    return train_alone(folder, "one", "model=volume3d", "trainer.epochs=5")


def test_two_processes_train_as_one_on_the_same_batches(folder, uninterrupted):
    run = train_together(folder, "two", "model=volume3d", "trainer.epochs=5")
    assert_same(run, uninterrupted)
    assert json.loads(run.metrics.read_text(encoding="utf-8"))["test"]["n"] == 4
    assert run.report.exists()
    saved = run.config.read_text(encoding="utf-8")
    assert "strategy: hosts" in saved
    assert "127.0.0.1" not in saved  # another job may resume it, on other hosts


def test_slices_are_shared_too(folder):
    overrides = ("model=slice2d", "trainer.epochs=2")
    assert_same(train_together(folder, "two-2d", *overrides), train_alone(folder, "one-2d", *overrides))


def test_a_users_network_is_trained_by_both_and_resumed_with_its_module_named(folder, tmp_path):
    (tmp_path / "mynets.py").write_text(MODULE, encoding="utf-8")
    given = (
        "strategy=hosts",
        "model=volume3d",
        "custom=[mynets]",
        "model.builder={_target_: mynets.small_encoder, width: 4, kernels: [3]}",
    )
    start = [one for one in arguments_for(folder, "user") if not one.startswith("model.filters")]
    for arguments in ([*start, *given, "trainer.epochs=1"], [f"resume={folder}/user", "trainer.epochs=2"]):
        named = () if arguments[0] in start else ("custom=[mynets]",)
        statuses, _, errors = ends_of(start_both(folder, *arguments, *named, cwd=tmp_path))
        assert statuses == [0, 0], errors
    run = RunFolder(folder / "user")
    assert [row["epoch"] for row in read_rows(run.history)] == ["1", "2"]
    assert run.is_finished


def worker_of(process):
    """The training process: the command forks it, and waits for it."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return int(children.read_text(encoding="ascii").split()[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for child processes in /proc")
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_run_with_a_message_and_a_folder_to_resume(killed, folder, uninterrupted):
    run = RunFolder(folder / f"killed-{killed}")
    overrides = ("model=volume3d", "trainer.epochs=5", "trainer.checkpoint_steps=1", "strategy=hosts")
    both = start_both(folder, *arguments_for(folder, run.path.name, *overrides))
    while not (run.checkpoints / "at-0001-000000.npz").exists():
        assert all(one.poll() is None for one in both), ends_of(both)
        time.sleep(0.01)
    os.kill(worker_of(both[killed]), signal.SIGKILL)
    statuses, _, named = ends_of(both)
    assert statuses == [LOST, LOST], named
    assert "SIGKILL" in named[killed]
    for words in named:
        assert "Traceback" not in words
        assert f"voxlift-train resume={run.path}" in words.splitlines()[-1]
    assert not run.is_finished
    statuses, shown, named = ends_of(start_both(folder, f"resume={run.path}"))
    assert statuses == [0, 0], named
    assert shown[0].rstrip().endswith(str(run.path))
    assert_same(run, uninterrupted)


def test_a_failure_of_one_host_ends_both_with_its_reason(folder):
    overrides = arguments_for(folder, "failed", "strategy=hosts", "model=volume3d", "trainer.epochs=1")
    wrong = [f"data.folder={folder / 'taken'}"]
    (folder / "taken").write_text("no folder")
    both = start_both(folder, *overrides, own={1: wrong})
    statuses, _, named = ends_of(both)
    assert statuses == [USER_ERROR, USER_ERROR], named
    assert all(str(folder / "taken") in words.splitlines()[-1] for words in named)
    assert not (folder / "failed").exists()


def test_other_settings_on_a_host_are_named_on_all(folder):
    overrides = arguments_for(folder, "differing", "strategy=hosts", "model=volume3d")
    statuses, _, named = ends_of(start_both(folder, *overrides, own={1: ["seed=3"]}))
    assert statuses == [USER_ERROR, USER_ERROR], named
    assert all("seed" in words.splitlines()[-1] for words in named)


def test_a_host_that_never_comes_ends_the_waiting(folder):
    overrides = arguments_for(folder, "alone", "strategy=hosts", "model=volume3d", "hosts.wait_seconds=4")
    both = start_both(folder, *overrides, only=0)
    statuses, _, named = ends_of(both)
    assert statuses == [LOST], named
    assert "hosts.wait_seconds" in named[0].splitlines()[-1]
