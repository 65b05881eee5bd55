"""From the command line of a comparison to its trials: what they share, what they vary, where they go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlift.app.comparison.compose import choose_model, compose_training
from voxlift.app.comparison.selection import expand_names
from voxlift.app.comparison.trial import Trial, lay_out_trials
from voxlift.app.config import CompareSettings, SettingsError, TrainSettings
from voxlift.app.config.overrides import shared_overrides
from voxlift.app.data.sources import check_columns, table_options
from voxlift.app.progress import say
from voxlift.app.runs.folder import refuse_used_folder
from voxlift.app.runs.reuse import refuse_other_run
from voxlift.data_pipelines.tables.manifest import load_manifest

OWN_KEYS = ("models", "seeds", "best_of", "run_dir", "runs_folder", "debug", "experiment")
VARIED = dict.fromkeys(("model", "seed", "splits.fold"), "use models=[...], seeds=[...] and splits.folds.")


@dataclass(frozen=True)
class Plan:
    """A comparison before its first training.

    Attributes:
        folder: where it goes.
        trials: the trainings, every model on every fold with every seed.
        settings: what each trial's overrides compose to.
        names: what is compared: models, experiments and contests.
        contests: of those, the contests with their candidates, which are among the trials.
    """

    folder: Path
    trials: tuple[Trial, ...]
    settings: tuple[TrainSettings, ...]
    names: tuple[str, ...]
    contests: Mapping[str, tuple[str, ...]]


def plan_comparison(asked: CompareSettings) -> Plan:
    """The trials of a comparison, all of them checked before the first is trained.

    Raises:
        SettingsError: the settings name no comparison, a trial's are wrong, or the folder holds others.
        ManifestError: the table is at fault, which is told once, not by every training.
    """
    contests = _contests_of(asked)
    _check_lists(asked.models, asked.seeds)
    shared = shared_overrides("a comparison", refused=VARIED, own=OWN_KEYS)
    folder = choose_folder(asked, shared)
    trials = lay_out_trials(
        expand_names(asked.models, contests),
        asked.seeds,
        folds=range(max(1, asked.splits.folds)),
        folder=folder,
        shared=shared,
        choice_of=lambda name: choose_model(name, contests=list(asked.best_of)),
    )
    settings = {trial: compose_training(trial.overrides) for trial in trials}
    contests = {name: _fit_candidates(name, own, settings) for name, own in contests.items()}
    wanted = expand_names(asked.models, contests)
    kept = {trial: values for trial, values in settings.items() if trial.model in wanted}
    for trial, values in kept.items():
        refuse_other_run(trial.run, values)
    _check_table(list(kept.values()))
    return Plan(folder, tuple(kept), tuple(kept.values()), tuple(asked.models), contests)


def choose_folder(asked: CompareSettings, shared: Sequence[str]) -> Path:
    """The comparison's folder: the one asked for, or one named by what is compared.

    Args:
        asked: the comparison's settings.
        shared: the overrides that every training gets.

    Raises:
        SettingsError: it holds something else.
    """
    if asked.run_dir is None:
        contests = _contests_of(asked)
        own = [
            f"models={asked.models}",
            f"seeds={asked.seeds}",
            *([f"best_of={contests}"] if contests else []),
        ]
        identity = json.dumps(sorted([*shared, *own]))
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        return Path(asked.runs_folder) / f"compare-{asked.data.name}-{digest}"
    path = Path(asked.run_dir).expanduser()
    if not (path / "runs").is_dir():
        refuse_used_folder(asked.run_dir)
    return path


def _contests_of(asked: CompareSettings) -> dict[str, tuple[str, ...]]:
    """The contests among the models that are asked for, with their candidates."""
    contests = {name: tuple(asked.best_of[name]) for name in asked.models if name in asked.best_of}
    few = [name for name, candidates in contests.items() if len(set(candidates)) < 2]
    if few:
        raise SettingsError(
            f"best_of.{few[0]}: expected at least two different models to choose from; "
            f"received [{','.join(contests[few[0]])}]."
        )
    return contests


def _fit_candidates(
    contest: str, candidates: Sequence[str], settings: Mapping[Trial, TrainSettings]
) -> tuple[str, ...]:
    """The candidates that the volumes allow: slices along all three axes need a cube."""

    def is_fit(name: str) -> bool:
        values = next(own for trial, own in settings.items() if trial.model == name)
        shape = values.preprocess.shape
        return values.model.axis != "all" or shape is None or len(set(shape)) == 1

    fit = tuple(name for name in candidates if is_fit(name))
    for name in candidates:
        if name not in fit:
            say(f"{contest}: {name} is left out, it needs a cubic preprocess.shape")
    return fit


def _check_table(trainings: Sequence[TrainSettings]) -> None:
    """Pass when the user's own table, which all trainings share, can be used; written ones need no look."""
    data = trainings[0].data
    if data.name == "manifest":
        load_manifest(str(data.table), table_options(data))
    for settings in trainings:
        if settings.model.kind == "table":
            check_columns(data, settings.model.columns)


def _check_lists(names: list[str], seeds: list[int]) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise SettingsError(f"models: expected at least two different names; received [{','.join(names)}].")
    if not seeds or len(set(seeds)) < len(seeds):
        raise SettingsError(f"seeds: expected different numbers; received {seeds}.")
