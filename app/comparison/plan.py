"""Plan a comparison: check its settings, name its folder and build its trials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlift.app.comparison.compose import build_model_overrides, compose_trial
from voxlift.app.comparison.trial import Trial, build_trials
from voxlift.app.config import CompareSettings, SettingsError, TrainSettings
from voxlift.app.config.checks import find_verdict_problems
from voxlift.app.config.overrides import key_of, select_shared_overrides
from voxlift.app.errors import refuse_problems
from voxlift.app.progress import print_line
from voxlift.app.runs.configuration import refuse_other_run
from voxlift.app.runs.folder import refuse_used_folder
from voxlift.app.tasks.base import task_of

OWN_KEYS = (
    "models",
    "seeds",
    "best_of",
    "verdict",
    "run_dir",
    "runs_folder",
    "debug",
    "experiment",
    "cluster",
)
VARIED = dict.fromkeys(("model", "seed", "splits.fold"), "use models=[...], seeds=[...] and splits.folds.")


@dataclass(frozen=True)
class Plan:
    """A comparison before its first training.

    Attributes:
        folder: Folder of the comparison.
        trials: Trainings, every model on every fold with every seed.
        settings: Settings of each trial.
        names: What is compared: models, experiments and names under `best_of`.
        candidates: For each of those names under `best_of`, the models that validation selects from; all of
            them are among the trials.
    """

    folder: Path
    trials: tuple[Trial, ...]
    settings: tuple[TrainSettings, ...]
    names: tuple[str, ...]
    candidates: Mapping[str, tuple[str, ...]]


def plan_comparison(asked: CompareSettings) -> Plan:
    """Return the trials of a comparison, all of them checked before the first is trained.

    Raises:
        SettingsError: The settings describe no comparison, a trial's are wrong, or the folder is in use.
        ManifestError: The table is wrong; it is read once here, before any training reads it.
    """
    candidates = _read_candidates(asked)
    _check_lists(asked.models, asked.seeds)
    refuse_problems(find_verdict_problems(asked.verdict))
    shared = select_shared_overrides("a comparison", refused=VARIED, own=OWN_KEYS)
    folder = choose_folder(asked, shared)
    trials = build_trials(
        expand_names(asked.models, candidates),
        asked.seeds,
        folds=_list_folds(asked),
        folder=folder,
        shared=shared,
        model_overrides=lambda name: build_model_overrides(name, groups=list(asked.best_of)),
    )
    settings = dict(compose_trial(trial) for trial in trials)
    candidates = {name: _select_applicable(name, own, settings) for name, own in candidates.items()}
    wanted = expand_names(asked.models, candidates)
    kept = {trial: values for trial, values in settings.items() if trial.model in wanted}
    for trial, values in kept.items():
        refuse_other_run(trial.run, values)
    _check_table(list(kept.values()))
    return Plan(folder, tuple(kept), tuple(kept.values()), tuple(asked.models), candidates)


def _list_folds(asked: CompareSettings) -> range:
    """Return the folds that are run: all of them, a fold for each site, or a single one without folds."""
    if asked.splits.leave_out is None:
        return range(max(1, asked.splits.folds))
    from voxlift.app.data.cohort import count_folds  # numpy and the image libraries: not for `--help`

    return range(count_folds(asked))


def choose_folder(asked: CompareSettings, shared: Sequence[str]) -> Path:
    """Return the comparison's folder: the one asked for, or one named by a digest of what is compared.

    Args:
        asked: Settings of the comparison.
        shared: Overrides of every training.

    Raises:
        SettingsError: The folder holds something else.
    """
    if asked.run_dir is None:
        candidates = _read_candidates(asked)
        own = [f"models={asked.models}", f"seeds={asked.seeds}"]
        own += [f"best_of={candidates}"] if candidates else []
        kept = [one for one in shared if not key_of(one).startswith("evaluation.")]  # it changes no training
        identity = json.dumps(sorted([*kept, *own]))
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        return Path(asked.runs_folder) / f"compare-{asked.data.name}-{digest}"
    path = Path(asked.run_dir).expanduser()
    if not (path / "runs").is_dir():
        refuse_used_folder(asked.run_dir)
    return path


def expand_names(names: Sequence[str], candidates: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the models to train, each once: a name under `best_of` stands for its candidates."""
    models = [model for name in names for model in candidates.get(name, [name])]
    return list(dict.fromkeys(models))


def _check_lists(names: list[str], seeds: list[int]) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise SettingsError(f"models: expected at least two different names; received [{','.join(names)}].")
    if not seeds or len(set(seeds)) < len(seeds):
        raise SettingsError(f"seeds: expected different numbers; received {seeds}.")


def _read_candidates(asked: CompareSettings) -> dict[str, tuple[str, ...]]:
    """Return the candidates of every name under `best_of` that stands among the models."""
    candidates = {name: tuple(asked.best_of[name]) for name in asked.models if name in asked.best_of}
    for name, models in candidates.items():
        if len(set(models)) < 2:
            raise SettingsError(
                f"best_of.{name}: expected at least two different models to select from; "
                f"received [{','.join(models)}]."
            )
    return candidates


def _select_applicable(
    name: str, candidates: Sequence[str], settings: Mapping[Trial, TrainSettings]
) -> tuple[str, ...]:
    """Return the candidates that the volumes allow: slices along all three axes need a cube."""
    kept = []
    for model in candidates:
        values = next(own for trial, own in settings.items() if trial.model == model)
        shape = values.preprocess.shape
        if values.model.axis != "all" or shape is None or len(set(shape)) == 1:
            kept.append(model)
        else:
            print_line(f"{name}: {model} is left out; it needs a cubic preprocess.shape, not {shape}")
    return tuple(kept)


def _check_table(trainings: Sequence[TrainSettings]) -> None:
    """Read the user's table, which all trainings share, and check the columns that a model takes from it."""
    from voxlift.app.data.sources import check_columns, table_options  # numpy: not for --help
    from voxlift.data_pipelines.tables.manifest import load_manifest

    data = trainings[0].data
    if data.name == "manifest":
        task = task_of(trainings[0])
        task.check_records(load_manifest(str(data.table), table_options(data, task)))
    for settings in trainings:
        if settings.model.columns:
            check_columns(data, settings.model.columns)
