"""One trial trained in a child process, unless a finished run gives the same.

A child process for each: its peak memory is its own, and a crash of one leaves the others' results.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from voxlift.app.comparison.trial import Outcome, Trial
from voxlift.app.config import TrainSettings
from voxlift.app.config.overrides import quote_override
from voxlift.app.progress import say
from voxlift.app.runs.reuse import find_finished, has_begun
from voxlift.app.runtime.child import run_child

TRAIN = (sys.executable, "-m", "voxlift.app.cli.train")


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


@contextmanager
def hold_lock(path: Path, *, waiting: Callable[[], None]) -> Iterator[tuple[int, ...]]:
    """Hold a lock file for as long as this process, or a child that inherits it, is alive.

    A comparison that was killed may leave a training behind that goes on: the next comparison then waits for
    it instead of writing beside it. Where the system or the file system knows no such locks, nothing is held.

    Args:
        path: the lock file; made if need be, and left behind.
        waiting: called once where another process holds the lock, before waiting for it.

    Yields:
        The file descriptors that a child must inherit to hold the lock as well.
    """
    try:
        import fcntl
    except ImportError:
        yield ()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass  # some network file systems have no locks
        yield (file.fileno(),)
