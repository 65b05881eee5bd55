"""Train each trial of a comparison in a child process, unless a finished run has the same settings.

In a process of its own a training has its own peak memory, and a crash leaves the other results intact. The
child processes are of this process, or of the workers of a cluster; a trial can be run again anywhere, as it
resumes what it finds in its folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from voxlift.app.comparison.plan import Plan
from voxlift.app.comparison.trial import Outcome, Trial, build_trial_row
from voxlift.app.config import TrainSettings
from voxlift.app.config.overrides import format_override, quote_override
from voxlift.app.config.schema import ClusterSettings
from voxlift.app.files import write_rows
from voxlift.app.progress import BRIEF
from voxlift.app.runs.configuration import TRIALS, find_finished_run, has_same_settings
from voxlift.app.runtime.child import python_module, run_child
from voxlift.app.runtime.exit_status import LOST, USER_ERROR
from voxlift.app.runtime.jobs import Job, JobContext, JobEnd, run_jobs
from voxlift.data_pipelines.files import remove_leftovers

TRAIN = tuple(python_module("voxlift.app.cli.train"))


HERE = ClusterSettings()  # no cluster


def run_trials(
    plan: Plan, *, runs_folder: Path, arguments: Sequence[str] = (), cluster: ClusterSettings = HERE
) -> list[Outcome]:
    """Train every trial that has no finished run; a failed one does not stop the others.

    `trials.csv` in the comparison's folder is written again after each trial. Where the first fold and seed
    fails with a user error for every model (an unreadable table, for instance), the rest is not tried.

    Args:
        plan: Plan of the comparison.
        runs_folder: Another place to look for finished runs with the same settings.
        arguments: Further arguments of each training, such as the user's own configuration folder.
        cluster: Where the trainings run. On a cluster, `logs` in the comparison's folder gets their output.

    Raises:
        KeyboardInterrupt: The user interrupted a training.
    """
    remove_leftovers(plan.folder)
    logs = None if cluster.name == "none" else plan.folder / "logs"
    jobs = build_jobs(
        list(zip(plan.trials, plan.settings, strict=True)),
        runs_folder=runs_folder,
        arguments=arguments,
        logs=logs,
    )
    found: dict[int, Outcome] = {}
    first = range(len({trial.model for trial in plan.trials}))
    for index, end in run_jobs(cluster, jobs):
        found[index] = read_outcome(plan.trials[index], end)
        outcomes = [found[k] for k in sorted(found)]
        write_rows(plan.folder / TRIALS, [build_trial_row(outcome) for outcome in outcomes])
        if all(k in found and found[k].status == USER_ERROR for k in first):
            break
    return [found[k] for k in sorted(found)]


def build_jobs(
    trainings: Sequence[tuple[Trial, TrainSettings]],
    *,
    runs_folder: Path,
    arguments: Sequence[str] = (),
    logs: Path | None = None,
) -> list[Job[Outcome]]:
    """Return the job of each training.

    Args:
        trainings: Trials with the settings that their overrides compose to.
        runs_folder: See `run_trial`.
        arguments: See `run_trial`.
        logs: Folder for the output of each training; None shows it on the terminal.
    """
    jobs = []
    for number, (trial, settings) in enumerate(trainings, start=1):
        name = trial.run.path.name
        label = f"{number}/{len(trainings)}  {name}"
        log = logs / f"{name}.txt" if logs else None
        call = partial(
            run_trial, trial, settings, label=label, runs_folder=runs_folder, arguments=arguments, log=log
        )
        # A model that first trains a slice model copies that of the comparison, where it is finished by then.
        jobs.append(Job(label, call, priority=-int(settings.model.pretrain)))
    return jobs


def read_outcome(trial: Trial, end: JobEnd[Outcome]) -> Outcome:
    """Return the outcome of a training's job, also where its workers were lost."""
    return end.value if end.value is not None else Outcome(trial, LOST, end.problem)


def run_trial(
    trial: Trial,
    settings: TrainSettings,
    context: JobContext,
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
        context: Where it runs.
        label: Start of each printed line, such as `3/10  volume3d-seed0`.
        runs_folder: Where finished runs are looked for, besides the trial's own folder.
        arguments: Further arguments of the training.
        log: File for the training's output; None shows it on the terminal.

    Raises:
        KeyboardInterrupt: The user interrupted the training.
    """
    lock = trial.run.path.with_name(f".{trial.run.path.name}.lock")
    message, report = f"{label}: another process trains it, waiting", context.report
    with hold_lock(lock, report=partial(report, message)) as descriptors:
        if trial.run.is_finished:
            report(f"{label}: finished before, reused")
            return Outcome(trial, is_reused=True)
        found = find_finished_run(settings, runs_folder)
        if found is not None:
            report(f"{label}: finished before, reused from {found.path}")
            return Outcome(replace(trial, run=found), is_reused=True)
        resumes = has_same_settings(trial.run, settings)
        report(f"{label}: resuming" if resumes else f"{label}: training")
        command = build_training_command(trial, arguments, resumes=resumes, custom=settings.custom)
        status, reason = _train_in_child(command, context, descriptors, log)
    if status or context.worker:
        report(f"{label}: failed, {reason}" if status else f"{label}: finished")
    return Outcome(trial, status, reason, worker=context.worker)


def _train_in_child(
    command: Sequence[str], context: JobContext, descriptors: Sequence[int], log: Path | None
) -> tuple[int, str]:
    """Run the training; on a cluster it ends with its worker, whose device another training then gets."""
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    return run_child(
        command,
        descriptors=descriptors,
        log=log,
        environment={**context.environment, BRIEF: "1"},
        heading=f"On {context.worker}" if context.worker and log else "",
        dies_with_parent=bool(context.worker),
    )


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
def hold_lock(path: Path, *, report: Callable[[], None]) -> Iterator[tuple[int, ...]]:
    """Hold a lock file for as long as this process, or a child that inherits it, is alive.

    A killed comparison may leave a training behind that still runs: the next comparison waits for it instead
    of writing into the same folder. Without support for locks (Windows, some network file systems) nothing
    is held.

    Args:
        path: Lock file; created if missing, and left behind.
        report: Called once if another process holds the lock.

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
            report()
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass  # some network file systems have no locks
        yield (file.fileno(),)
