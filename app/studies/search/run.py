"""Run the search: draw settings, train with them, record what they reach; then check the gain."""

from __future__ import annotations

import csv
import hashlib
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from voxlift.app.comparison.check import check_trainings
from voxlift.app.comparison.compose import compose_training, config_dir_arguments
from voxlift.app.comparison.run import build_training_command
from voxlift.app.comparison.trial import Outcome, Trial
from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.config.commands import StudySettings
from voxlift.app.config.overrides import format_value, get_value, refuse_unread_columns, remove_keys
from voxlift.app.evaluation.metric_names import is_lower_better
from voxlift.app.progress import print_line, progress_bar
from voxlift.app.runs.configuration import has_same_settings
from voxlift.app.runtime.exit_status import INTERRUPTED
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.search.report import report_search
from voxlift.app.studies.search.store import (
    BEST,
    GIVEN,
    SearchFindings,
    ask_trial,
    build_distributions,
    count_ended,
    format_param,
    format_params,
    import_optuna,
    list_completed,
    number_trials,
    open_search,
)
from voxlift.app.studies.settings import Choices, Range, read_space
from voxlift.app.studies.trainings import plan_trainings, read_study_overrides, run_trainings

if TYPE_CHECKING:
    import optuna

PAUSE_SECONDS = 0.5  # between two readings of the history
ENDED_BY_USER = {INTERRUPTED, -signal.SIGINT}

Watch: TypeAlias = Callable[[int, float], bool]
"""Called with the number and the value of an epoch; returns whether the training is to be stopped."""


def study_search(settings: StudySettings, folder: StudyFolder) -> None:
    """Run the remaining trials of the search, check the gain, write table, figures and page.

    Raises:
        SettingsError: An override is refused, the given settings cannot be trained, or all trials failed.
        UserError: Optuna is not installed.
    """
    study = settings.study
    space = read_space(study.space, where="study.space")
    refused = dict.fromkeys(space, "remove it from study.space, or from the command line.")
    shared = [*read_study_overrides(refused=refused), f"trainer.epochs={study.epochs}"]
    base = compose_training(shared)
    refuse_unread_columns(base.model)
    check_trainings({base.model.name: base})
    search = open_search(study, folder.path / "search.db")
    _queue_given(search, space, base)
    run_search(search, space, shared, settings, folder)
    confirmed = _confirm(search, space, shared, settings, folder)
    report_search(settings, folder, SearchFindings(base, space, search, shared, confirmed))


def run_search(
    search: optuna.Study,
    space: Mapping[str, Range | Choices],
    shared: Sequence[str],
    settings: StudySettings,
    folder: StudyFolder,
) -> None:
    """Train trials until there are `study.trials`.

    Args:
        search: Optuna study.
        space: Ranges and choices.
        shared: Overrides of every trial.
        settings: Settings of the study.
        folder: Folder of the study.

    Raises:
        SettingsError: All trials failed.
    """
    wanted, distributions = int(settings.study.trials), build_distributions(space)
    folder.logs.mkdir(exist_ok=True)
    reasons: list[str] = []
    with progress_bar("Trials", wanted) as advance:
        for _ in range(count_ended(search)):
            advance()
        while count_ended(search) < wanted:
            asked = ask_trial(search, settings.study, distributions)
            reasons += _run_trial(search, asked, shared, settings, folder)
            advance()
    if not list_completed(search):
        reason = reasons[0] if reasons else f"see the logs in {folder.logs}"
        raise SettingsError(f"No trial finished. The first error: {reason}")


def _run_trial(
    search: optuna.Study,
    asked: optuna.Trial,
    shared: Sequence[str],
    settings: StudySettings,
    folder: StudyFolder,
) -> list[str]:
    """Train one trial and record its result; return the reason if it failed."""
    study, states = settings.study, import_optuna().trial.TrialState
    trial = plan_trial(asked.params, shared, settings, folder)
    log = folder.logs / f"{trial.run.path.name}.txt"
    column = f"val_{study.metric}"

    def watch(epoch: int, value: float) -> bool:
        asked.report(value, epoch)
        return bool(study.prune and asked.should_prune())

    status = train_watched(
        trial, column=column, watch=watch, log=log, arguments=tuple(config_dir_arguments())
    )
    values = read_column(trial.run.history, column)
    if status is None:
        search.tell(asked, state=states.PRUNED)
    elif status or not values:
        search.tell(asked, state=states.FAIL)
    else:
        search.tell(asked, min(values) if is_lower_better(study.metric) else max(values))
    _print_trial(search, asked.number, study.metric)
    if not status:
        return []
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return [lines[-1] if lines else f"exit status {status}"]


def plan_trial(
    params: Mapping[str, Any], shared: Sequence[str], settings: StudySettings, folder: StudyFolder
) -> Trial:
    """Return the training of a trial; its folder is named by its settings, so that it is found again."""
    text = format_value(dict(sorted(params.items())))
    label = f"trial-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    own = remove_keys(shared, {*params, "seed"})
    (trial,) = plan_trainings({label: format_params(params)}, [settings.seed], shared=own, folder=folder)
    compose_training(trial.overrides)
    return trial


def _print_trial(search: optuna.Study, number: int, metric: str) -> None:
    trial, position = search.get_trials(deepcopy=False)[number], number_trials(search)[number]
    params = ", ".join(
        f"{key.rpartition('.')[2]} {format_param(value)}" for key, value in trial.params.items()
    )
    value = "" if trial.value is None else f" {metric} {trial.value:.3f}"
    print_line(f"  trial {position}:{value} {trial.state.name.lower()} ({params})")


def _queue_given(search: optuna.Study, space: Mapping[str, Range | Choices], base: TrainSettings) -> None:
    """Queue the given settings as the first trial, if they lie in the space: gains are relative to them."""
    if search.trials:
        return
    values = {key: get_value(base, key) for key in space}
    if all(one.contains(values[key]) for key, one in space.items()):
        search.enqueue_trial(values, user_attrs={GIVEN: True})


def _confirm(
    search: optuna.Study,
    space: Mapping[str, Range | Choices],
    shared: Sequence[str],
    settings: StudySettings,
    folder: StudyFolder,
) -> list[Outcome]:
    """Train the best and the given settings with seeds that the search has not used."""
    seeds = [seed for seed in settings.study.confirm_seeds if seed != settings.seed]
    if not seeds:
        return []
    print_line("Training the best and the given settings with other seeds")
    own = remove_keys(shared, {*space, "seed"})
    points = {GIVEN: [], BEST: format_params(search.best_params)}
    trials = plan_trainings(points, seeds, shared=own, folder=folder)
    return run_trainings(trials, folder, runs_folder=settings.runs_folder, cluster=settings.cluster)


def train_watched(
    trial: Trial, *, column: str, watch: Watch, log: Path, arguments: Sequence[str] = ()
) -> int | None:
    """Train in a child process that can be stopped early.

    Args:
        trial: The training; an interrupted one is resumed.
        column: Column of the history to watch.
        watch: Called once per epoch with its number and value; True stops the training.
        log: File for the training's output.
        arguments: Further arguments of the training.

    Returns:
        The exit status; None where `watch` stopped the training.

    Raises:
        KeyboardInterrupt: The user interrupted the training.
    """
    if trial.run.is_finished:
        for epoch, value in enumerate(read_column(trial.run.history, column)):
            watch(epoch, value)
        return 0
    settings = compose_training(trial.overrides)
    resumes = has_same_settings(trial.run, settings)
    command = build_training_command(trial, arguments, resumes=resumes, custom=settings.custom)
    with log.open("w", encoding="utf-8") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)  # noqa: S603 - our own module, no shell
        try:
            status = _follow(child, trial.run.history, column, watch)
        finally:
            _stop(child)
    if status in ENDED_BY_USER:
        raise KeyboardInterrupt
    return status


def read_column(history: Path, column: str) -> list[float]:
    """Return a column of a history that may still be written; an incomplete line is left out."""
    if not history.exists():
        return []
    text = history.read_text(encoding="utf-8")
    complete = text[: text.rfind("\n") + 1]
    return [float(row[column]) for row in csv.DictReader(complete.splitlines()) if row.get(column)]


def _follow(child: subprocess.Popen[Any], history: Path, column: str, watch: Watch) -> int | None:
    seen = 0
    while True:
        status = child.poll()  # before the history is read, so that the last epoch is not missed
        values = read_column(history, column)
        for epoch in range(seen, len(values)):
            if watch(epoch, values[epoch]) and status is None:
                return None
        seen = len(values)
        if status is not None:
            return status
        time.sleep(PAUSE_SECONDS)


def _stop(child: subprocess.Popen[Any]) -> None:
    """Terminate a child process that still runs; kill it after 20 s."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(timeout=20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
