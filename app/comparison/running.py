"""Trains what is not trained yet, each trial in a child process, and uses again what is.

A child process for each: its peak memory is its own, and a crash of one leaves the others' results.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict

from app.comparison.trials import Trial
from app.progress import console
from app.runs import load_settings
from app.settings import TrainSettings

INDIFFERENT = ("run_dir", "runs_folder", "debug", "cache", "logger")  # settings that change no result


def run_trial(trial: Trial, settings: TrainSettings, *, label: str, arguments: Sequence[str] = ()) -> int:
    """Train in a child process unless the trial's folder holds the finished run; the child's exit status.

    Args:
        trial: what to train.
        settings: what its overrides compose to.
        label: said before the run's name, such as `3/10`.
        arguments: further arguments of the command, such as the user's own configuration folder.
    """
    title = f"{label}  {trial.run.path.name}"
    if trial.run.is_finished and is_same_training(load_settings(trial.run), settings):
        console.print(f"{title}: finished before, reused", highlight=False)
        return 0
    console.print(f"{title}: training", highlight=False)
    if trial.run.path.exists():
        shutil.rmtree(trial.run.path)  # what a killed training left in this comparison's own folder
    command = [sys.executable, "-m", "app.train", *arguments, *trial.overrides]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - our own module, no shell


def is_same_training(saved: TrainSettings, wanted: TrainSettings) -> bool:
    """Whether two settings give the same training; a run fills in the classes that the user left open."""
    if not wanted.data.classes:
        wanted.data.classes = saved.data.classes
    return _essence(saved) == _essence(wanted)


def _essence(settings: TrainSettings) -> dict[str, object]:
    return {key: value for key, value in asdict(settings).items() if key not in INDIFFERENT}
