"""Tests of studies compose the real configuration; a stand-in replaces child trainings and measurements."""

import functools
import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from voxlift.app.cli.study import append_open_key, read_settings, study
from voxlift.app.cli.train import read_settings as read_training
from voxlift.app.comparison import check as comparison_check
from voxlift.app.comparison import compose as comparison_compose
from voxlift.app.comparison import run as comparison_run
from voxlift.app.config import register_schemas
from voxlift.app.files import write_json, write_rows
from voxlift.app.report import pages
from voxlift.app.runs.configuration import save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.studies import measurement_process, trainings

TINY = [
    "data.subjects=24",
    "preprocess.shape=[8,12,16]",
    "preprocess.spacing=[8,5,4]",
    "model.filters=[4,6,8]",
    "precision=float32",
    "splits.val=0.25",
    "splits.test=0.25",
]


@contextmanager
def compose_study(*overrides):
    """Yield the settings of a study, inside the configuration that its trainings are composed from."""
    register_schemas()
    with initialize_config_module("voxlift.conf", version_base="1.3"):
        cfg = compose(
            "study", overrides=[append_open_key(one) for one in overrides], return_hydra_config=True
        )
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        yield read_settings(cfg)
    HydraConfig.instance().cfg = None


def run_tiny_study(*overrides):
    """Run a study as its command does and return its folder."""
    with compose_study(*TINY, *overrides) as settings:
        assert study(settings) == 0
        return Path(settings.run_dir).absolute()


@pytest.fixture
def composed():
    """A function: the context of a study's settings."""
    return compose_study


@pytest.fixture
def composed_training():
    """A function: the settings of a tiny training."""

    def compose_one(*overrides):
        register_schemas()
        with initialize_config_module("voxlift.conf", version_base="1.3"):
            return read_training(compose("train", overrides=[*TINY, *overrides]))

    return compose_one


@pytest.fixture(scope="session")
def run_study():
    """A function: runs a study on the tiny settings."""
    return run_tiny_study


class StandIn:
    """Writes the files of a training or measurement; `score` returns how well classes are separated."""

    def __init__(self, score, answers=None):
        self.score, self.answers = score, {"networks": answer_networks} | (answers or {})
        self.failures = {}  # status and reason of measurements without an answer, by name
        self.trained, self.measured = [], []
        self.before = lambda _: None

    def __call__(self, command, *, log, **_):
        log.write_text("some output\n")
        if "voxlift.app.comparison.check" in command:
            write_json(Path(command[-1]) / "problems.json", {})
            return 0, ""
        if "voxlift.app.studies.measurements" in command:
            return self.measure(RunFolder(Path(command[-1])))
        return self.train([one for one in command if "=" in one])

    def train(self, overrides):
        settings = comparison_compose.compose_training(overrides)
        run = RunFolder(Path(settings.run_dir))
        self.before(run.path.name)
        quality = self.score(settings)
        if quality is None:
            return 70, "the reason"
        self.trained.append(run.path.name)
        run.path.mkdir(parents=True)
        settings.data.classes = ["a", "b"]
        save_settings(settings, run)
        run.model.write_bytes(b"")  # looked for, never loaded
        write_json(run.environment, {"voxlift": "0"})
        write_rows(run.history, [{"epoch": 0, "val_auc": quality}])
        rows = predictions(quality, seed=settings.seed)
        rows += predictions(quality, seed=settings.seed + 100, split="test")
        write_rows(run.predictions, rows)
        cost = {"parameters": 10.0, "flops": 1e6 * settings.model.filter_scale, "seconds_per_volume": 0.01}
        cost |= {"train_seconds": 1.0, "peak_memory_bytes": 1e9}
        write_json(run.metrics, {"threshold": 0.5, "cost": cost})
        return 0, ""

    def measure(self, place):
        self.before(place.path.name)
        self.measured.append(place.path.name)
        if place.path.name in self.failures:
            return self.failures[place.path.name]
        request = json.loads((place.path / "request.json").read_text(encoding="utf-8"))
        write_json(place.path / "answer.json", self.answers[request["kind"]](request, place))
        return 0, ""


def answer_networks(request, _):
    """Answer that all models differ, except that a depth kernel of 3 is the same as none."""
    plain = {
        name: model | {"depth_kernel": model["depth_kernel"] or 3}
        for name, model in request["models"].items()
    }
    return {
        "networks": {name: {"fingerprint": json.dumps(one), "problem": ""} for name, one in plain.items()}
    }


def predictions(quality, *, seed, subjects=80, split="val"):
    """Return rows whose probabilities separate the classes better for higher quality."""
    rng = np.random.default_rng(seed)
    labels = np.arange(subjects) % 2
    logits = quality * 4 * (labels - 0.5) + rng.normal(0, 1, subjects)
    shares = 1 / (1 + np.exp(-logits))
    return [
        {"subject": f"s{i}", "image": f"{i}.nii", "split": split, "label": "ab"[y], "p_a": 1 - p, "p_b": p}
        for i, (y, p) in enumerate(zip(labels, shares, strict=True))
    ]


def install_stand_in(monkeypatch, folder, score, answers):
    """Replace child processes by a stand-in, in a working directory of its own."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(pages, "DOTS_PER_INCH", 30)  # drawing, resampling and composing take most of the time
    monkeypatch.setattr(trainings, "RESAMPLES", 500)
    once = functools.cache(lambda name, overrides: compose(name, overrides=list(overrides)))
    monkeypatch.setattr(comparison_compose, "compose", lambda name, overrides: once(name, tuple(overrides)))
    one = StandIn(score, answers)
    monkeypatch.setattr(comparison_check, "run_child", one)
    monkeypatch.setattr(comparison_run, "run_child", one)
    monkeypatch.setattr(measurement_process, "run_child", one)
    return one


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A function: installs a stand-in, in an empty working directory."""
    return lambda score, answers=None: install_stand_in(monkeypatch, tmp_path, score, answers)


@pytest.fixture(scope="module")
def study_once(tmp_path_factory):
    """A function: runs a study once for several tests; returns the stand-in and the folder."""

    def run_once(overrides, score, answers=None):
        with pytest.MonkeyPatch.context() as monkeypatch:
            one = install_stand_in(monkeypatch, tmp_path_factory.mktemp("study"), score, answers)
            return one, run_tiny_study(*overrides)

    return run_once
