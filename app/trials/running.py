"""One trial trained in a child process, unless a finished run gives the same.

A child process for each: its peak memory is its own, and a crash of one leaves the others' results.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from voxlift.app.progress import say
from voxlift.app.runs.reuse import find_finished, has_begun
from voxlift.app.settings import TrainSettings
from voxlift.app.settings.overrides import quote_override
from voxlift.app.trials.child import run_child
from voxlift.app.trials.locks import hold_lock
from voxlift.app.trials.outcomes import Outcome
from voxlift.app.trials.trial import Trial

TRAIN = (sys.executable, "-m", "voxlift.app.train")


def run_trial(
    trial: Trial,
    settings: TrainSettings,
    *,
    label: str,
    runs_folder: Path | None = None,
    arguments: Sequence[str] = (),
    log: Path | None = None,
) -> Outcome:
    """Train in a child process unless a finished run gives the same.

    Args:
        trial: what to train.
        settings: what its overrides compose to.
        label: said before what happens, such as `3/10  volume3d-seed0`.
        runs_folder: where finished runs are looked for, besides the trial's own folder; None: nowhere.
        arguments: further arguments of the command.
        log: the file that gets what the training says; None lets it speak on the terminal.

    Raises:
        KeyboardInterrupt: the user interrupted the training.
    """

    def tell(what: str) -> None:
        say(f"{label}: {what}")

    lock = trial.run.path.with_name(f".{trial.run.path.name}.lock")
    with hold_lock(lock, waiting=lambda: tell("another process trains it, waiting")) as descriptors:
        if trial.run.is_finished:
            tell("finished before, reused")
            return Outcome(trial, is_reused=True)
        found = find_finished(settings, runs_folder) if runs_folder else None
        if found is not None:
            tell(f"finished before, reused from {found.path}")
            return Outcome(replace(trial, run=found), is_reused=True)
        goes_on = has_begun(trial.run, settings)
        tell("going on where it was broken off" if goes_on else "training")
        command = training_command(trial, arguments, goes_on=goes_on)
        status, reason = run_child(command, descriptors=descriptors, log=log)
    if status:
        tell(f"failed, {reason}")
    return Outcome(trial, status, reason)


def training_command(trial: Trial, arguments: Sequence[str] = (), *, goes_on: bool) -> list[str]:
    """The command that trains a trial in its folder, which is empty afterwards unless the training goes on.

    Args:
        trial: what to train.
        arguments: further arguments of a training that begins anew.
        goes_on: whether the same training was broken off there, see `has_begun`.
    """
    if goes_on:
        return [*TRAIN, f"resume={quote_override(str(trial.run.path))}"]
    if trial.run.path.exists():
        shutil.rmtree(trial.run.path)  # other settings, or nothing to go on from
    return [*TRAIN, *arguments, *trial.overrides]
