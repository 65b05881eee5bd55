"""The search: ask for settings, train with them, tell what they reached; then check the gain."""

from __future__ import annotations

import csv
import hashlib
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.comparison.compose import compose_training, config_dir_arguments
from voxlift.app.comparison.run_trial import training_command
from voxlift.app.comparison.trial import Outcome, Trial
from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.config.commands import StudySettings
from voxlift.app.config.overrides import format_value, value_of, without_keys
from voxlift.app.progress import progress_bar, say
from voxlift.app.runs.reuse import has_begun
from voxlift.app.runtime.exit_status import INTERRUPTED
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.search.report import report_search, short_text
from voxlift.app.studies.search.store import (
    BEST,
    GIVEN,
    SearchFindings,
    build_distributions,
    count_done,
    finished,
    import_optuna,
    open_store,
    overrides_of,
)
from voxlift.app.studies.space import Choices, Range, read_space
from voxlift.app.studies.trainings import plan_trainings, run_trainings, study_overrides

if TYPE_CHECKING:
    import optuna


def study_search(settings: StudySettings, folder: StudyFolder) -> None:
    """Run what is left of the search, check the gain, write table, figures and page."""
    study = settings.study
    space = read_space(study.space, where="study.space")
    given = study_overrides(refused=dict.fromkeys(space, "leave it out of study.space, or do not set it."))
    shared = [*given, f"trainer.epochs={study.epochs}"]
    base = compose_training(shared)
    known = open_store(study, folder.path / "search.db")
    _queue_given(known, space, base)
    search(known, space, shared, settings, folder)
    confirmed = _confirm(known, space, shared, settings, folder)
    report_search(settings, folder, SearchFindings(base, space, known, shared, confirmed))


def search(
    known: optuna.Study,
    space: Mapping[str, Range | Choices],
    shared: Sequence[str],
    settings: StudySettings,
    folder: StudyFolder,
) -> None:
    """Train trials until there are as many as asked for.

    Raises:
        SettingsError: all trials failed.
    """
    study, distributions = settings.study, build_distributions(space)
    folder.logs.mkdir(exist_ok=True)
    reasons: list[str] = []
    with progress_bar("Trials", int(study.trials)) as advance:
        for _ in range(done := count_done(known)):
            advance()
        while done < study.trials:
            asked = known.ask(distributions)
            reasons += _run_trial(known, asked, shared, settings, folder)
            done = count_done(known)
            advance()
    if not finished(known):
        raise SettingsError(f"no trial came to an end: {reasons[0] if reasons else 'see the logs'}")


def _run_trial(
    known: optuna.Study,
    asked: optuna.Trial,
    shared: Sequence[str],
    settings: StudySettings,
    folder: StudyFolder,
) -> list[str]:
    """Train one trial and tell the search; why it failed, where it did."""
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
    values = read_values(trial.run.history, column)
    if status is None:
        known.tell(asked, state=states.PRUNED)
    elif status or not values:
        known.tell(asked, state=states.FAIL)
    else:
        known.tell(asked, min(values) if study.metric == "loss" else max(values))
    _say(known, asked.number, study.metric)
    if not status:
        return []
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return [lines[-1] if lines else f"exit status {status}"]


def plan_trial(
    params: Mapping[str, Any], shared: Sequence[str], settings: StudySettings, folder: StudyFolder
) -> Trial:
    """The training of a trial; its folder is named by its settings, so that it is found again."""
    text = format_value(dict(sorted(params.items())))
    label = f"trial-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    own = without_keys(shared, {*params, "seed"})
    (trial,) = plan_trainings({label: overrides_of(params)}, [settings.seed], shared=own, folder=folder)
    compose_training(trial.overrides)
    return trial


def _queue_given(known: optuna.Study, space: Mapping[str, Range | Choices], base: TrainSettings) -> None:
    """The given settings are the first trial, where they lie in the space: the gain is measured from them."""
    if known.trials:
        return
    values = {key: value_of(base, key) for key in space}
    if all(one.holds(values[key]) for key, one in space.items()):
        known.enqueue_trial(values, user_attrs={GIVEN: True})


def _confirm(
    known: optuna.Study,
    space: Mapping[str, Range | Choices],
    shared: Sequence[str],
    settings: StudySettings,
    folder: StudyFolder,
) -> list[Outcome]:
    """The best and the given settings with seeds that the search has not seen."""
    seeds = [seed for seed in settings.study.confirm_seeds if seed != settings.seed]
    if not seeds:
        return []
    say("Training the best and the given settings with other seeds")
    own = without_keys(shared, {*space, "seed"})
    points = {GIVEN: [], BEST: overrides_of(known.best_params)}
    trials = plan_trainings(points, seeds, shared=own, folder=folder)
    return run_trainings(trials, folder, runs_folder=settings.runs_folder)


def _say(known: optuna.Study, number: int, metric: str) -> None:
    trial = known.get_trials(deepcopy=False)[number]
    words = ", ".join(f"{key.rpartition('.')[2]} {short_text(value)}" for key, value in trial.params.items())
    ended = trial.state.name.lower()
    value = "" if trial.value is None else f" {metric} {trial.value:.3f}"
    say(f"  trial {number}:{value} {ended} ({words})")


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
