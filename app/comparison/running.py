"""Trains what is not trained yet, each trial in a child process, and uses again what is.

A child process for each: its peak memory is its own, and a crash of one leaves the others' results.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer

from app.comparison.locks import hold_lock
from app.comparison.outcomes import Outcome, outcome_row
from app.comparison.planning import Plan
from app.comparison.reuse import TRIALS, find_finished, has_begun
from app.comparison.trials import Trial, quote_override
from app.files import write_rows
from app.progress import console
from app.settings import TrainSettings

USER_ERROR, CRASH, TIMED_OUT, INTERRUPTED = 2, 70, 124, 130
TRAIN = (sys.executable, "-m", "app.train")


def run_trials(plan: Plan, *, runs_folder: Path, arguments: Sequence[str] = ()) -> list[Outcome]:
    """Train every trial that has no finished run; one that fails does not keep the others from theirs.

    `trials.csv` in the comparison's folder is brought up to date after each. Where all models of the first
    fold and seed are refused (a table that cannot be read, say), the rest is not tried.

    Args:
        plan: the comparison.
        runs_folder: finished runs with the same settings are looked for here too.
        arguments: further arguments of each training, such as the user's own configuration folder.

    Raises:
        KeyboardInterrupt: the user interrupted a training.
    """
    outcomes: list[Outcome] = []
    models = len({trial.model for trial in plan.trials})
    for number, (trial, wanted) in enumerate(zip(plan.trials, plan.settings, strict=True), start=1):
        label = f"{number}/{len(plan.trials)}  {trial.run.path.name}"
        outcomes.append(run_trial(trial, wanted, label=label, runs_folder=runs_folder, arguments=arguments))
        write_rows(plan.folder / TRIALS, [outcome_row(outcome) for outcome in outcomes])
        if number == models and all(outcome.status == USER_ERROR for outcome in outcomes):
            break
    return outcomes


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

    def say(what: str) -> None:
        console.print(f"{label}: {what}", highlight=False, soft_wrap=True)

    lock = trial.run.path.with_name(f".{trial.run.path.name}.lock")
    with hold_lock(lock, waiting=lambda: say("another process trains it, waiting")) as descriptors:
        if trial.run.is_finished:
            say("finished before, reused")
            return Outcome(trial, is_reused=True)
        found = find_finished(settings, runs_folder) if runs_folder else None
        if found is not None:
            say(f"finished before, reused from {found.path}")
            return Outcome(replace(trial, run=found), is_reused=True)
        if has_begun(trial.run, settings):
            say("going on where it was broken off")
            command = [*TRAIN, f"resume={quote_override(str(trial.run.path))}"]
        else:
            say("training")
            if trial.run.path.exists():
                shutil.rmtree(trial.run.path)  # other settings, or nothing to go on from
            command = [*TRAIN, *arguments, *trial.overrides]
        status, reason = run_child(command, descriptors=descriptors, log=log)
    if status:
        say(f"failed, {reason}")
    return Outcome(trial, status, reason)


def run_child(
    command: Sequence[str],
    *,
    descriptors: Sequence[int] = (),
    log: Path | None = None,
    seconds: float | None = None,
) -> tuple[int, str]:
    """Run a command of ours; its exit status, and its last words where that is not 0.

    Args:
        command: a module of ours and its arguments.
        descriptors: open files that the child inherits.
        log: the file that gets its output; None shows it.
        seconds: that it may take before it is killed; None for any number.

    Raises:
        KeyboardInterrupt: the child was interrupted.
    """
    words = ""
    with ExitStack() as stack:
        file = stack.enter_context(log.open("w", encoding="utf-8")) if log else None
        child = stack.enter_context(
            subprocess.Popen(  # noqa: S603 - our own module, no shell
                command,
                stdout=file,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                pass_fds=tuple(descriptors),
            )
        )
        alarm = stack.enter_context(_kill_after(child, seconds))
        for line in child.stderr or ():
            (file or sys.stderr).write(line)
            words = line.strip() or words
        child.wait()
    if alarm.is_set():
        return TIMED_OUT, f"no end within {seconds:g} s"
    status = child.returncode
    if status in {INTERRUPTED, -signal.SIGINT}:
        raise KeyboardInterrupt
    if status < 0:
        return CRASH, _describe_signal(-status)
    return status, words.removeprefix("error: ") if status else ""


@contextmanager
def _kill_after(child: subprocess.Popen[str], seconds: float | None) -> Iterator[Event]:
    """Kill a child that runs for longer; the event says whether that was done."""
    rang = Event()

    def ring() -> None:
        rang.set()
        child.kill()

    timer = Timer(seconds or 0, ring)
    if seconds is not None:
        timer.start()
    try:
        yield rang
    finally:
        timer.cancel()


def _describe_signal(number: int) -> str:
    hint = " (out of memory?)" if number == signal.SIGKILL else ""
    return f"ended by {signal.Signals(number).name}{hint}"
