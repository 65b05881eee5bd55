"""A killed training goes on and ends where an unbroken one ends, bit for bit on one machine's CPU."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from app.runs import RunFolder, read_json, read_rows
from app.runtime import load_network
from app.training.checkpoints import Checkpoints, read_arrays

ROOT = Path(__file__).parents[2]
TINY = [
    "data.subjects=24",
    "preprocess.shape=[8,12,16]",
    "preprocess.spacing=[8,5,4]",
    "model.filters=[4,6,8]",
    "trainer.epochs=3",
    "trainer.batch_size=2",
    "trainer.patience=5",
    "trainer.accumulate=2",
    "trainer.ema=0.9",
    "trainer.checkpoint_steps=2",
    "splits.val=0.25",
    "splits.test=0.25",
    "deterministic=true",
]
KINDS = {
    "volume3d": ["model=volume3d", "precision=mixed_float16"],
    "slice2d": ["model=slice2d", "precision=float32"],
    "inflated": ["experiment=inflated", "model.init=mean", "model.freeze_epochs=1", "precision=float32"],
}
CLOCKS = {"seconds", "input_seconds", "compute_seconds"}  # what no two runs share


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def unbroken(folder):
    """The runs that nobody killed, each made when it is first asked for."""
    made = {}

    def run_of(kind):
        if kind not in made:
            made[kind] = RunFolder(folder / f"{kind}-unbroken")
            finish(begin(folder, kind, made[kind]))
        return made[kind]

    return run_of


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "app.train", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def begin(folder, kind, run):
    places = [f"data.folder={folder}/data", f"cache.folder={folder}/cache", f"run_dir={run.path}"]
    return start(*TINY, *KINDS[kind], *places)


def finish(child):
    said, _ = child.communicate(timeout=600)
    assert child.returncode == 0, said
    return said


def kill_when(child, path, delay=0.0):
    """SIGKILL `delay` seconds after a file has appeared; whether the child was still alive then."""
    while not path.exists() and child.poll() is None:
        time.sleep(0.002)
    time.sleep(delay)
    was_alive = child.poll() is None
    child.send_signal(signal.SIGKILL)
    said, _ = child.communicate(timeout=60)
    assert child.returncode in {-signal.SIGKILL, 0}, said
    return was_alive


def history_of(run):
    return [{key: row[key] for key in row if key not in CLOCKS} for row in read_rows(run.history)]


def newest_state(run):
    paths = sorted(run.checkpoints.glob("*.npz"))
    return {path.name: read_arrays(path)[0] for path in paths}


def assert_same_end(run, reference):
    assert history_of(run) == history_of(reference)
    ours, theirs = newest_state(run), newest_state(reference)
    assert set(ours) == set(theirs)
    for name, arrays in theirs.items():
        assert set(ours[name]) == set(arrays)
        for key, value in arrays.items():
            np.testing.assert_array_equal(ours[name][key], value, err_msg=f"{name} {key}")
    models = [load_network(one.model) for one in (run, reference)]
    for mine, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert read_rows(run.predictions) == read_rows(reference.predictions)
    for split in ("val", "test"):
        assert read_json(run.metrics)[split] == read_json(reference.metrics)[split]


def moments(run):
    """Files whose appearance marks a moment of a training, the last ones within scoring and the report."""
    inner = [
        run.checkpoints / f"at-{epoch:04d}-{step:06d}.npz"
        for epoch, step in [(0, 2), (1, 0), (1, 4), (2, 0), (2, 2), (3, 0)]
    ]
    return [run.config, *inner, run.model, run.predictions, run.report]


def test_a_run_killed_within_an_epoch_and_again_while_scoring_ends_like_an_unbroken_one(folder, unbroken):
    reference, run = unbroken("volume3d"), RunFolder(folder / "killed")
    assert kill_when(begin(folder, "volume3d", run), run.checkpoints / "at-0001-000004.npz")
    assert not run.is_finished
    assert kill_when(start(f"resume={run.path}"), run.predictions)
    said = finish(start(f"resume={run.path}"))
    assert said.rstrip().endswith(str(run.path))
    assert_same_end(run, reference)
    assert len(Checkpoints(run.checkpoints)._all()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(20))
def test_a_run_killed_at_random_times_ends_like_an_unbroken_one(trial, folder, unbroken):
    rng = random.Random(trial)  # noqa: S311 - a repeatable choice, no secret
    kind = ("volume3d", "inflated", "slice2d")[trial % 3]
    reference, run = unbroken(kind), RunFolder(folder / f"trial{trial}")
    place = run
    if kind == "inflated" and rng.random() < 0.5:
        place = RunFolder(run.path / "slice2d")
    first = rng.choice(moments(place))
    kill_when(begin(folder, kind, run), first, rng.uniform(0, 0.5))
    second = rng.choice(moments(place))
    if not second.exists() and not run.is_finished:
        kill_when(start(f"resume={run.path}"), second, rng.uniform(0, 0.5))
    finish(start(f"resume={run.path}"))
    assert_same_end(run, reference)
    if kind == "inflated":
        assert_same_end(RunFolder(run.path / "slice2d"), RunFolder(reference.path / "slice2d"))
