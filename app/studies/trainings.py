"""A study's trainings: planned like a comparison's, run in child processes, read for validation alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.comparison.compose import compose_training, config_dir_arguments
from voxlift.app.comparison.run_trial import run_trial
from voxlift.app.comparison.trial import Outcome, Trial, lay_out_trials, trials_by_model
from voxlift.app.config import SettingsError
from voxlift.app.config.overrides import given_keys, shared_overrides
from voxlift.app.files import read_json
from voxlift.app.progress import progress_bar
from voxlift.app.runs.predictions import read_scores
from voxlift.app.runs.reuse import refuse_other_run
from voxlift.app.studies.folder import StudyFolder

if TYPE_CHECKING:
    from voxlift.app.evaluation.scores import Scores


OWN_KEYS = ("study", "run_dir", "runs_folder", "debug")


def study_overrides(*, refused: Mapping[str, str]) -> list[str]:
    """What the user set and every training of a study gets; without a logger unless one is asked for.

    Args:
        refused: Keys that the study sets itself, each with the way out.

    Raises:
        SettingsError: the user set one of those.
    """
    shared = shared_overrides("the study", refused=refused, own=OWN_KEYS)
    return shared if "logger" in given_keys() else [*shared, "logger=none"]


def plan_trainings(
    points: Mapping[str, Sequence[str]], seeds: Sequence[int], *, shared: Sequence[str], folder: StudyFolder
) -> list[Trial]:
    """A training for every point and seed; a point is a label with the overrides that make it."""
    return lay_out_trials(
        list(points), seeds, folds=[0], folder=folder.path, shared=shared, choice_of=lambda name: points[name]
    )


def run_trainings(trials: Sequence[Trial], folder: StudyFolder, *, runs_folder: str) -> list[Outcome]:
    """Train what is not trained yet; one that fails leaves the others be.

    Args:
        trials: What to train.
        folder: Of the study; what a training says goes into its `logs`.
        runs_folder: Finished runs with the same settings are looked for here too.

    Raises:
        SettingsError: none can be composed, the folder holds others, or all of them failed.
        KeyboardInterrupt: the user stopped a training.
    """
    # All of them, before the first is trained.
    settings = [compose_training(trial.overrides) for trial in trials]
    for trial, wanted in zip(trials, settings, strict=True):
        refuse_other_run(trial.run, wanted)
    arguments, place = tuple(config_dir_arguments()), Path(runs_folder)
    folder.logs.mkdir(exist_ok=True)
    outcomes = []
    with progress_bar("Trainings", len(trials)) as advance:
        for number, (trial, wanted) in enumerate(zip(trials, settings, strict=True), start=1):
            name = trial.run.path.name
            label, log = f"{number}/{len(trials)}  {name}", folder.logs / f"{name}.txt"
            outcomes.append(
                run_trial(trial, wanted, label=label, runs_folder=place, arguments=arguments, log=log)
            )
            advance()
    if not any(outcome.is_finished for outcome in outcomes):
        raise SettingsError(f"all {len(trials)} trainings failed, the first with: {outcomes[0].reason}")
    return outcomes


def finished_trials(outcomes: Sequence[Outcome]) -> list[Trial]:
    """The trainings that have results."""
    return [outcome.trial for outcome in outcomes if outcome.is_finished]


def say_failures(outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence for every training that came to no end."""
    failed = [outcome for outcome in outcomes if not outcome.is_finished]
    return [f"{outcome.trial.run.path.name} came to no end: {outcome.reason}" for outcome in failed]


def complete_points(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """The finished trainings of every point that has as many seeds as any."""
    points = trials_by_model(trials)
    most = max((len(of_point) for of_point in points.values()), default=0)
    return {name: of_point for name, of_point in points.items() if len(of_point) == most}


def validation_scores(trial: Trial) -> Scores:
    """The validation scores of one training."""
    return read_scores(trial.run, split="val")


def cost_of(trials: Sequence[Trial]) -> dict[str, float]:
    """Each cost that the trainings wrote down, averaged over them."""
    costs: list[dict[str, Any]] = [read_json(trial.run.metrics)["cost"] for trial in trials]
    shared = [key for key in costs[0] if all(key in cost for cost in costs)]
    return {key: sum(cost[key] for cost in costs) / len(costs) for key in shared}
