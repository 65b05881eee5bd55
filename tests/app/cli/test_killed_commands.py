"""A command that is killed at any moment and started again ends in the results of an undisturbed one.

    pytest -m slow -rP tests/app/cli/test_killed_commands.py

Each command is measured once undisturbed. Then it is killed with SIGKILL, with all of its processes, at 20
moments spread over that time, each in a folder of its own, and resumed as its help says.
"""

import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter

import h5py
import numpy as np
import psutil
import pytest

from commands import own_environment
from scans import random_voxels, write_nifti

pytestmark = pytest.mark.slow
KILLS = 20
TINY = (
    "data.subjects=16",
    "preprocess.shape=[8,12,16]",
    "preprocess.spacing=[8,5,4]",
    "model.filters=[4,4,4]",
    "trainer.epochs=2",
    "trainer.batch_size=4",
    "precision=float32",
    "splits.val=0.25",
    "splits.test=0.25",
    "deterministic=true",
    "preflight.enabled=false",
    "logger=none",
    "data.folder=data",
    "cache.folder=cache",
)
TRAIN = ("train", *TINY, "trainer.checkpoint_steps=1", "run_dir=out")
COMPARE = ("compare", "models=[linear,volume3d]", "seeds=[0]", *TINY, "run_dir=out")
PREDICT = ("predict", "run=../trained/out", "input=../trained/data", "explain=true", "batch_size=1")
STUDY = ("study", *TINY, "run_dir=out")
SEARCH = (
    *STUDY,
    "study=search",
    "study.trials=2",
    "study.epochs=1",
    "study.prune=false",
    "study.confirm_seeds=[]",
    "study.space.trainer.batch_size=null",
)
ARCHITECTURE = (
    *STUDY,
    "study=architecture",
    "study.seeds=[0]",
    "study.epochs=1",
    "study.vary.model.filter_scale=[0.5,1]",
    *(f"study.vary.model.{key}=null" for key in ("depth_policy", "depth_kernel", "init", "head")),
)
CACHE = """
import sys
from pathlib import Path
from voxlift.data_pipelines.cache.fill import fill_cache
from voxlift.data_pipelines.preprocess.settings import preset
images = [(path,) for path in sorted(Path("../images").resolve().iterdir())]
print("started", flush=True)
fill_cache(images, preset("ct", shape=(24, 32, 40)), folder=Path("out"), workers=2)
"""
COMMANDS = {
    "train": (TRAIN,),
    "compare": (COMPARE,),
    "predict": ((*PREDICT, "output=out/scores.csv"),),
    "cache": (CACHE,),
    "study": (SEARCH, SEARCH, SEARCH, ARCHITECTURE),
}
# What no two runs share: clocks, memory, and whether a training was found finished.
VARYING = re.compile(r"seconds|memory|bytes|load|rate$|^state$|^files$|^created$|_rate_|steps_per")
UNCOMPARED = (".html", ".png", ".svg", ".db", ".lock", ".txt", "environment.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of all trials, with images to prepare and a finished run."""
    made = tmp_path_factory.mktemp("killed")
    for number in range(300):
        write_nifti(made / "images" / f"{number:03d}.nii", random_voxels(number, shape=(40, 48, 56)))
    return made


@pytest.fixture(scope="module")
def undisturbed(folder):
    """A function: the folder of a command that nobody killed, and the seconds that it took."""
    made = {}

    def run(name, variant=0):
        if name == "predict":
            run("train")
        place = folder / {"train": "trained"}.get(name, f"{name}{variant}-undisturbed")
        if place not in made:
            for _ in range(
                3 if name == "cache" else 1
            ):  # short, so that its time varies: the shortest counts
                shutil.rmtree(place, ignore_errors=True)
                prepare(name, place)
                ended = start(COMMANDS[name][variant], place, seconds=600)
                assert ended.status == 0, ended.output
                made[place] = min(made.get(place, ended), ended, key=lambda one: one.seconds)
        return place, made[place].seconds

    return run


class Ended:
    """How a command ended: its status (None where it was killed), its seconds and its output."""

    def __init__(self, status, seconds, output):
        self.status, self.seconds, self.output = status, seconds, output


def prepare(name, place):
    place.mkdir()
    if name == "predict":
        (place / "out").mkdir()


def start(command, place, *, seconds):
    """Run a command in a folder, and kill all of its processes where it takes longer than some seconds."""
    module = (
        ("-c", command) if isinstance(command, str) else ("-m", f"voxlift.app.cli.{command[0]}", *command[1:])
    )
    environment = own_environment(OMP_NUM_THREADS="2", TF_NUM_INTRAOP_THREADS="2")
    output = place.with_suffix(".txt")
    with (
        output.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            [sys.executable, "-P", *module],
            cwd=place,
            env=environment,
            stdout=subprocess.PIPE if isinstance(command, str) else file,
            stderr=file,
            start_new_session=True,
        ) as process,
    ):
        if process.stdout:
            process.stdout.readline()  # what is imported before is not of interest
        began = time.monotonic()
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = None
        await_end(process.pid)
        took = time.monotonic() - began
    return Ended(status, took, output.read_text(encoding="utf-8"))


def await_end(group):
    """Wait until the kernel has ended all processes of a group."""
    for _ in range(100):
        if not any(map(is_living_member(group), psutil.pids())):
            return
        time.sleep(0.05)
    raise AssertionError(f"processes of group {group} still run")


def is_living_member(group):
    """Return a function of a process number: whether it belongs to a group and has not ended."""

    def is_member(number):
        try:
            return os.getpgid(number) == group and psutil.Process(number).status() != psutil.STATUS_ZOMBIE
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False

    return is_member


def resume_of(command, place):
    """Return the command that resumes, as the help of each command says."""
    if command[0] == "train" and (place / "out" / "config.yaml").exists():
        return "train", "resume=out"
    return command


@pytest.mark.parametrize("trial", range(KILLS))
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_killed_and_resumed_ends_like_an_undisturbed_one(name, trial, folder, undisturbed):
    variant = trial % len(COMMANDS[name])
    command = COMMANDS[name][variant]
    reference, seconds = undisturbed(name, variant)
    rng = random.Random(f"{name} {trial}")  # noqa: S311 - a repeatable choice, no secret
    moment, place = (trial + rng.random()) / KILLS * seconds, folder / f"{name}-{trial}"
    while True:
        prepare(name, place)
        killed = start(command, place, seconds=moment)
        if killed.status is None:
            break
        assert killed.status == 0, killed.output
        shutil.rmtree(place)  # faster than the one that was measured: earlier, then
        moment *= 0.8
    found = stamp(place)
    again = resume_of(command, place)
    resumed = start(again, place, seconds=600)
    assert resumed.status == 0, resumed.output
    how = "resume=" if again != command else "the same command"
    assert_equal_results(place, reference)
    if name == "cache":
        kept = {path: time for path, time in found.items() if path.endswith(".float16") and "/." not in path}
        assert kept.items() <= stamp(place).items(), "a finished volume was written again"
    print(  # noqa: T201 - for pytest -rP
        f"{name} {trial}: killed after {moment:.2f} of {seconds:.2f} s with {len(found)} files"
        f" ({sum('.writing-' in path for path in found)} half written); resumed by {how}"
        f" in {resumed.seconds:.2f} s; equal"
    )
    shutil.rmtree(place)


def stamp(place):
    """Return the modification time of every file below a folder, by its path."""
    return {
        str(path.relative_to(place)): path.stat().st_mtime_ns
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


def assert_equal_results(place, reference):
    """Assert that two folders hold the same files, with the same results."""
    ours, theirs = describe(place), describe(reference)
    assert set(ours) == set(theirs)
    for name, content in theirs.items():
        assert ours[name] == content, name


def describe(place):
    """Return what stands in every file below a folder, by its path, as far as it is no clock's."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if path.is_file() and not name.startswith(("data/", "cache/")):
            found[name] = read_result(path, place)
    found["data"] = sorted(path.name for path in place.glob("data/**/*"))
    # Names in the cache follow the time at which the images were written.
    found["cache"] = Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in place.glob("cache/*"))
    return found


def read_result(path, place):
    """Return the results in a file; None where there is nothing to compare but that it exists."""
    if path.name.endswith(UNCOMPARED) or "logs" in path.parts:
        return None
    content = path.read_bytes().replace(str(place).encode(), b"FOLDER")
    if path.suffix == ".json":
        return drop_varying(json.loads(content))
    if path.suffix == ".csv":
        return [drop_varying(row) for row in csv.DictReader(io.StringIO(content.decode(), newline=""))]
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tolist() for name in arrays.files if name != "state.json"}
    if path.suffix == ".keras":
        return read_weights(path)
    return content


def drop_varying(value):
    if isinstance(value, dict):
        return {key: drop_varying(one) for key, one in value.items() if not VARYING.search(key)}
    return [drop_varying(one) for one in value] if isinstance(value, list) else repr(value)


def read_weights(path):
    """Return every weight of a Keras file."""
    found = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()].tolist()}) if isinstance(item, h5py.Dataset) else None
            )
        )
    assert found
    return found


def test_the_comparison_of_results_notices_a_changed_number_and_a_file_too_many(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(f'{{"test": {{"auc": 0.5}}, "seconds": {ord(name)}}}')
    assert_equal_results(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / ".writing-x").touch()
    with pytest.raises(AssertionError):
        assert_equal_results(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / ".writing-x").unlink()
    (tmp_path / "b" / "metrics.json").write_text('{"test": {"auc": 0.25}}')
    with pytest.raises(AssertionError):
        assert_equal_results(tmp_path / "a", tmp_path / "b")
