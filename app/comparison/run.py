"""Train each trial of a comparison in a child process, unless a finished run has the same settings.

In a process of its own a training has its own peak memory, and a crash leaves the other results intact.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from voxlift.app.comparison.plan import Plan
from voxlift.app.comparison.trial import Outcome, Trial, build_trial_row
from voxlift.app.config import TrainSettings
from voxlift.app.config.overrides import format_override, quote_override
from voxlift.app.files import write_rows
from voxlift.app.progress import print_line
from voxlift.app.runs.configuration import TRIALS, find_finished_run, has_same_settings
from voxlift.app.runtime.child import python_module, run_child
from voxlift.app.runtime.exit_status import USER_ERROR
from voxlift.data_pipelines.atomic import remove_leftovers

TRAIN = tuple(python_module("voxlift.app.cli.train"))


def run_trials(plan: Plan, *, runs_folder: Path, arguments: Sequence[str] = ()) -> list[Outcome]:
    """Train every trial that has no finished run; a failed one does not stop the others.

    `trials.csv` in the comparison's folder is written again after each trial. Where the first fold and seed
    fails with a user error for every model (an unreadable table, for instance), the rest is not tried.

    Args:
        plan: Plan of the comparison.
        runs_folder: Another place to look for finished runs with the same settings.
        arguments: Further arguments of each training, such as the user's own configuration folder.

    Raises:
        KeyboardInterrupt: The user interrupted a training.
    """
    remove_leftovers(plan.folder)
    outcomes: list[Outcome] = []
    models = len({trial.model for trial in plan.trials})
    for number, (trial, settings) in enumerate(zip(plan.trials, plan.settings, strict=True), start=1):
        label = f"{number}/{len(plan.trials)}  {trial.run.path.name}"
        outcomes.append(run_trial(trial, settings, label=label, runs_folder=runs_folder, arguments=arguments))
        write_rows(plan.folder / TRIALS, [build_trial_row(outcome) for outcome in outcomes])
        if number == models and all(outcome.status == USER_ERROR for outcome in outcomes):
            break
    return outcomes


def run_trial(
    trial: Trial,
    settings: TrainSettings,
    *,
    label: str,
    runs_folder: Path,
    arguments: Sequence[str] = (),
    log: Path | None = None,
) -> Outcome:
    """Train one trial in a child process, or reuse a finished run with the same settings.

    Args:
        trial: The training.
        settings: Settings that its overrides compose to.
        label: Start of each printed line, such as `3/10  volume3d-seed0`.
        runs_folder: Where finished runs are looked for, besides the trial's own folder.
        arguments: Further arguments of the training.
        log: File for the training's output; None shows it on the terminal.

    Raises:
        KeyboardInterrupt: The user interrupted the training.
    """
    lock = trial.run.path.with_name(f".{trial.run.path.name}.lock")
    message = f"{label}: another process trains it, waiting"
    with hold_lock(lock, message=message) as descriptors:
        if trial.run.is_finished:
            print_line(f"{label}: finished before, reused")
            return Outcome(trial, is_reused=True)
        found = find_finished_run(settings, runs_folder)
        if found is not None:
            print_line(f"{label}: finished before, reused from {found.path}")
            return Outcome(replace(trial, run=found), is_reused=True)
        resumes = has_same_settings(trial.run, settings)
        print_line(f"{label}: resuming" if resumes else f"{label}: training")
        command = build_training_command(trial, arguments, resumes=resumes, custom=settings.custom)
        status, reason = run_child(command, descriptors=descriptors, log=log)
    if status:
        print_line(f"{label}: failed, {reason}")
    return Outcome(trial, status, reason)


def build_training_command(
    trial: Trial, arguments: Sequence[str] = (), *, resumes: bool, custom: Sequence[str] = ()
) -> list[str]:
    """Return the command that trains a trial; a folder that cannot be resumed is emptied first.

    Args:
        trial: The training.
        arguments: Further arguments of a training that starts anew.
        resumes: Whether an interrupted training with the same settings is in the trial's folder.
        custom: Modules that a resumed training imports; a new one has them among its overrides.
    """
    if resumes:
        return [*TRAIN, f"resume={quote_override(str(trial.run.path))}", format_override("custom", custom)]
    if trial.run.path.exists():
        shutil.rmtree(trial.run.path)
    return [*TRAIN, *arguments, *trial.overrides]


@contextmanager
def hold_lock(path: Path, *, message: str) -> Iterator[tuple[int, ...]]:
    """Hold a lock file for as long as this process, or a child that inherits it, is alive.

    A killed comparison may leave a training behind that still runs: the next comparison waits for it instead
    of writing into the same folder. Without support for locks (Windows, some network file systems) nothing
    is held.

    Args:
        path: Lock file; created if missing, and left behind.
        message: Printed once if another process holds the lock.

    Yields:
        File descriptors that a child must inherit to hold the lock as well.
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
            print_line(message)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass  # some network file systems have no locks
        yield (file.fileno(),)
