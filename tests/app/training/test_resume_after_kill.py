"""A killed training resumes and ends where an uninterrupted one ends, bit for bit on one machine's CPU."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tiny import places_in
from voxlift.app.files import read_json, read_rows
from voxlift.app.runs.folder import RunFolder, load_network
from voxlift.app.training.checkpoints import Checkpoints, read_arrays

ROOT = Path(__file__).parents[3]
SERVER = Path(__file__).with_name("killed_training.py")
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
    "preflight.enabled=false",  # what is over before the first file is written costs only time here
]
KINDS = {
    "volume3d": ["model=volume3d", "precision=mixed_float16", "augment=none"],
    "slice2d": ["model=slice2d", "precision=float32", "augment=light"],
    "inflated": [
        "experiment=inflated",
        "model.init=mean",
        "model.freeze_epochs=1",
        "precision=float32",
        "augment=none",
    ],
    "builder": [
        "model=volume3d",
        "model.builder={_target_: voxlift.models.baselines.small.build_cnn, filters: [4, 6, 8]}",
        "model.init=centre",
        "model.freeze_epochs=1",
        "precision=float32",
        "augment=light",
    ],
}
CLOCKS = {"seconds", "input_seconds", "compute_seconds"}  # what no two runs share


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def train(folder):
    """Runs a training to its end, or to where it is killed; whether it was, and what it said."""
    server = subprocess.Popen(
        [sys.executable, str(SERVER)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def train_once(run, kind=None, *, until=("batch", 0)):
        arguments = (
            [*TINY, *KINDS[kind], *places_in(folder, run.path.name)] if kind else [f"resume={run.path}"]
        )
        output = run.path.with_suffix(".txt")
        asked = {
            "folder": str(run.path),
            "kind": until[0],
            "moment": until[1],
            "arguments": arguments,
            "output": str(output),
        }
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        found, said = json.loads(server.stdout.readline()), output.read_text(encoding="utf-8")
        assert found["status"] == (-signal.SIGKILL if found["killed"] else 0), said
        return found["killed"], said

    with server:
        yield train_once
        server.stdin.close()


@pytest.fixture(scope="module")
def uninterrupted(folder, train):
    """The runs that nobody killed, each made when it is first asked for, and their batches and files."""
    made = {}

    def run_of(kind):
        if kind not in made:
            run = RunFolder(folder / f"{kind}-uninterrupted")
            _, said = train(run, kind)
            batches, files = map(int, said.split("counted")[-1].split())
            made[kind] = run, {"batch": batches, "file": files}
        return made[kind]

    return run_of


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


def test_a_run_killed_within_an_epoch_and_again_while_scoring_ends_like_an_uninterrupted_one(
    folder, train, uninterrupted
):
    reference, _ = uninterrupted("volume3d")
    run = RunFolder(folder / "killed")
    assert train(run, "volume3d", until=("batch", 11))[0]
    assert (run.checkpoints / "at-0001-000004.npz").exists()
    assert train(run, until=("file", "predictions.csv"))[0]
    assert run.model.exists()
    assert not run.predictions.exists()
    _, said = train(run)
    assert said.partition("counted")[0].rstrip().endswith(str(run.path))
    assert_same_end(run, reference)
    assert len(Checkpoints(run.checkpoints)._all()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(20))
def test_a_run_killed_at_random_steps_ends_like_an_uninterrupted_one(trial, folder, train, uninterrupted):
    rng = random.Random(trial)  # noqa: S311 - a repeatable choice, no secret
    kind, what = tuple(KINDS)[trial % len(KINDS)], rng.choice(("batch", "batch", "file"))
    reference, counted = uninterrupted(kind)
    run = RunFolder(folder / f"trial{trial}")
    first = rng.randint(1, counted[what])
    assert train(run, kind, until=(what, first))[0]
    named = f"seed {trial}, {kind}: killed at {what} {first} of {counted[what]}"
    if not run.config.exists():  # nothing had begun: the sentence of `resume=` says to start anew
        shutil.rmtree(run.path)
        train(run, kind)
    else:
        if rng.random() < 0.5:
            second = rng.randint(1, max(1, counted[what] - first))
            is_again, _ = train(run, until=(what, second))
            named += (
                f", and again at {what} {second}" if is_again else f"; its end came before {what} {second}"
            )
        train(run)
    print(named)  # noqa: T201 - for pytest -rP
    assert_same_end(run, reference)
    if kind == "inflated":
        assert_same_end(RunFolder(run.path / "slice2d"), RunFolder(reference.path / "slice2d"))
