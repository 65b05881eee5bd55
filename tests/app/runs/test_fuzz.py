"""A damaged file of a run folder is read or named: no traceback, hang or memory blow-up."""

import resource
import time
from functools import partial

import numpy as np
import pytest

from commands import compose_command
from voxlift.app.config import DataSettings, SettingsError, TrainSettings
from voxlift.app.config.overrides import to_settings
from voxlift.app.files import write_json, write_rows
from voxlift.app.report.run_page import count_splits
from voxlift.app.runs.cohort import read_training_range
from voxlift.app.runs.configuration import load_settings, reopen_settings, save_settings, saved_precision
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.linear import LinearWeights
from voxlift.app.runs.results import read_calibration, read_history, read_scores
from voxlift.app.training.checkpoints import Checkpoint, Checkpoints, Position

SECONDS, KILOBYTES = 10, 500_000
MAX_SHOWN = 4000  # characters of a message
COMMANDS = (  # each writes another config.yaml
    ("data.subjects=16", "model=slice2d", "trainer.epochs=3"),
    ("model=volume3d", "augment=strong", "model.filters=[4,6,8]", "preprocess.spacing=[8,5,4]"),
    ("experiment=inflated", "deterministic=true", "optimizer.learning_rate=1e-3"),
    ("model=linear", "preprocess=mri", "splits.folds=5", "splits.fold=1"),
    ("data=medmnist3d", "data.npz=x.npz", "model=slab25d", "trainer.loss=focal"),
)
CLASSES = ("a: &a", "*a", "???", "1.10", "true", "${x}", "\u00fc\u2028", "'\"")
WORDS = (
    "& * &a *a ? ?? ??? : - [ ] { } | > ! !! % @ ` ' \" # , \\ ~ << <<: .nan NaN Infinity ${ ${data} 0x 1_0"
)
WORDS += " ${oc.env:HOME} !!python/name:os.system 1e999 -1 0 null true 2020-99-99 " + "9" * 400
INSERTS = (
    *(word.encode() for word in WORDS.split()),
    *(b"\n", b"\n\n", b"\t", b" ", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"\x85", "\u2028".encode()),
    *(b"---\n", b"...\n", b"{" * 60, b"[" * 60, b"? [a]\n: b\n", b'{"a":', b'""', b"\\u0000", b"\\ud800"),
)


def write_configurations(folder):
    """Write the configurations of real runs; return the files."""
    found = []
    for number, overrides in enumerate(COMMANDS):
        run = RunFolder(folder / f"run{number}")
        run.path.mkdir()
        save_settings(to_settings(compose_command("train", *overrides), TrainSettings), run)
        found.append(run.config)
    odd = TrainSettings(data=DataSettings(name="manifest", table="a: b.csv", classes=list(CLASSES)))
    save_settings(odd, RunFolder(found[0].parent.parent))
    return [*found, RunFolder(folder).config]


def mutate(content, rng):
    """Return the content with bytes changed, put in, repeated, moved or cut off."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        place, kind = int(rng.integers(0, len(data) + 1)), int(rng.integers(0, 12))
        if kind < 4:
            data[place : place + 1] = bytes([int(rng.integers(32, 128) if kind else rng.integers(0, 256))])
        elif kind < 8:
            data[place : place + kind % 2] = INSERTS[int(rng.integers(0, len(INSERTS)))]
        elif kind == 8:
            data[place:place] = data[place : place + 40] * int(rng.integers(1, 400))
        elif kind == 9:
            data[place:place] = INSERTS[int(rng.integers(0, len(INSERTS)))] * int(rng.integers(1, 4000))
        elif kind == 10:
            start = int(rng.integers(0, len(data) + 1))
            data[place:place] = data[start : start + 60]
        else:
            del data[place : place + int(rng.integers(1, 80))]
    return bytes(data)


def check(targets, count, seed):
    """Read `count` mutated files; return how many were read, how many refused, and a line about it.

    Args:
        targets: Pairs of a file, and what reads it.
        count: Of mutations.
        seed: Of the mutations.
    """
    rng, contents = np.random.default_rng(seed), [file.read_bytes() for file, _ in targets]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read, messages, longest, slowest = 0, [], 0.0, b""
    for index in range(count):
        (file, reader), content = targets[index % len(targets)], contents[index % len(targets)]
        changed = mutate(content, rng)
        file.write_bytes(changed)
        started = time.perf_counter()
        try:
            reader()
            read += 1
        except SettingsError as error:
            messages.append(str(error))
        took = time.perf_counter() - started
        longest, slowest = max((longest, slowest), (took, changed[:200]))
        file.write_bytes(content)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert all(str(targets[0][0].parent.parent) in message for message in messages)
    assert longest < SECONDS, slowest
    assert grown < KILOBYTES
    assert max(map(len, messages), default=0) < MAX_SHOWN
    line = (
        f"{count} mutations of {len(targets)} files: {read} read, {len(messages)} refused,"
        f" longest {longest:.2f} s, {grown / 1024:.0f} MB more"
    )
    print(line)  # noqa: T201 - shown by pytest -s
    return read, len(messages)


def configuration_targets(folder):
    """Pairs of a configuration of a run, and what a resumed training does with it first."""
    again = RunFolder(folder / "again")
    again.path.mkdir()

    def read(path):
        _, settings = reopen_settings(str(path), overrides=["resume=x"], epochs=1)
        assert type(settings) is TrainSettings
        save_settings(settings, again)
        assert load_settings(again) == settings  # and written as it was read

    return [(file, partial(read, file.parent)) for file in write_configurations(folder)]


def write_run(folder):
    """Write the files of a finished run that commands read again; return it."""
    run, rng = RunFolder(folder / "run"), np.random.default_rng(0)
    run.path.mkdir()
    save_settings(TrainSettings(data=DataSettings(classes=["no", "yes"])), run)
    rows = [
        {"subject": f"s{n}", "image": f"/data/s {n}.nii.gz", "split": "val", "label": ("no", "yes")[n % 2]}
        | {"p_no": p, "p_yes": 1 - p}
        for n, p in enumerate(rng.random(12).tolist())
    ]
    write_rows(run.predictions, rows)
    write_rows(run.splits, [{key: row[key] for key in list(row)[:4]} | {"row": 2} for row in rows])
    write_rows(run.history, [{"epoch": n, "loss": 0.5, "val_auc": 0.75, "seconds": 1.5} for n in range(3)])
    write_json(run.environment, {"precision": "float32", "voxlift": "0", "packages": {"keras": "3"}})
    write_json(run.metrics, {"threshold": 0.5, "val": {"auc": 0.5}, "test": {}, "cost": {"train_seconds": 1}})
    channel = {name: [0.0, 1.5] for name in ("p01", "p50", "p99")}
    ranges = {"spacing": [[1, 2]] * 3, "shape": [[5, 9]] * 3, "axcodes": {"RAS": 3}, "channels": [channel]}
    write_json(run.training_range, {"volumes": 4, **ranges})
    weights = rng.random((2, 3, 4, 1, 2), np.float32)
    LinearWeights(weights, np.zeros(2), weights[..., 0], weights[..., 1], 0.1).save(run.linear)
    arrays = {f"network/{n:05d}": rng.random((3, n + 2), np.float32) for n in range(4)}
    state = {"EarlyStopping": {"best": [0.5, 1e-17], "best_epoch": 0, "epochs_run": 1, "stopped": False}}
    checkpoint = Checkpoint(Position(1), arrays, state, best=arrays)
    Checkpoints(run.checkpoints).save(checkpoint, best_epoch=0)
    return run


def run_targets(folder):
    """Pairs of a file of a run, and what reads it."""
    run = write_run(folder)
    checkpoints = Checkpoints(run.checkpoints)
    (saved,) = run.checkpoints.glob("at-*")
    return [
        (run.predictions, partial(read_scores, run, split="val")),
        (run.metrics, partial(read_scores, run, split="val")),
        (run.metrics, partial(read_calibration, run)),
        (run.splits, partial(count_splits, run)),
        (run.history, partial(read_history, run)),
        (run.environment, partial(saved_precision, run, TrainSettings())),
        (run.training_range, partial(read_training_range, run)),
        (run.linear, partial(LinearWeights.read, run.linear)),
        (saved, checkpoints.load),
    ]


TARGETS = {"configurations": configuration_targets, "other files": run_targets}


@pytest.mark.parametrize("kind", TARGETS)
def test_some_mutated_files_of_a_run_are_read_or_named(kind, tmp_path):
    read, refused = check(TARGETS[kind](tmp_path), 120, seed=3)
    assert read > 2
    assert refused > 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGETS)
def test_10000_mutated_files_of_a_run_are_read_or_named(kind, tmp_path):
    check(TARGETS[kind](tmp_path), 10_000, seed=4)
