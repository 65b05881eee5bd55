"""One trial of a search: a training in a child process, watched through its history, stopped when poor."""

from __future__ import annotations

import csv
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from voxlift.app.process.statuses import INTERRUPTED
from voxlift.app.runs.reuse import has_begun
from voxlift.app.trials.composing import compose_training
from voxlift.app.trials.running import training_command
from voxlift.app.trials.trial import Trial

PAUSE = 0.5  # seconds between two looks at the history
ENDED_BY_USER = {INTERRUPTED, -signal.SIGINT}

Watch = Callable[[int, float], bool]


def train_watched(
    trial: Trial, *, column: str, watch: Watch, log: Path, arguments: Sequence[str] = ()
) -> int | None:
    """Train in a child process; its exit status, None where `watch` wanted it stopped.

    Args:
        trial: What to train; a training that was broken off there goes on.
        column: Of the history, whose values are watched.
        watch: Called once for each epoch with its number and value; True stops the training.
        log: Gets what the training says.
        arguments: Further arguments of the command.

    Raises:
        KeyboardInterrupt: the user interrupted the training.
    """
    if trial.run.is_finished:
        for epoch, value in enumerate(read_values(trial.run.history, column)):
            watch(epoch, value)
        return 0
    goes_on = has_begun(trial.run, compose_training(trial.overrides))
    command = training_command(trial, arguments, goes_on=goes_on)
    with log.open("w", encoding="utf-8") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)  # noqa: S603 - our own module, no shell
        try:
            status = _follow(child, trial.run.history, column, watch)
        finally:
            stop(child)
    if status in ENDED_BY_USER:
        raise KeyboardInterrupt
    return status


def read_values(history: Path, column: str) -> list[float]:
    """The values of a column of a history that may still be growing; a line that is not whole is left out."""
    if not history.exists():
        return []
    text = history.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return [float(row[column]) for row in csv.DictReader(whole.splitlines()) if row.get(column)]


def stop(child: subprocess.Popen[Any]) -> None:
    """End a child process that still runs, asking first."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(timeout=20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _follow(child: subprocess.Popen[Any], history: Path, column: str, watch: Watch) -> int | None:
    seen = 0
    while True:
        status = child.poll()  # before the look, so that the last epoch is not missed
        values = read_values(history, column)
        for epoch in range(seen, len(values)):
            if watch(epoch, values[epoch]) and status is None:
                return None
        seen = len(values)
        if status is not None:
            return status
        time.sleep(PAUSE)
