"""From the command line of a comparison to its trials: what they share, what they vary, where they go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from app.comparison.contests import expand_names
from app.comparison.reuse import refuse_other_runs
from app.comparison.trials import Trial, lay_out_trials
from app.progress import console
from app.runs.opening import refuse_used_folder
from app.settings import DataSettings, SettingsError, TrainSettings
from app.train import read_settings

OWN_KEYS = ("models", "seeds", "best_of", "run_dir", "runs_folder", "debug", "experiment")


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


def plan_comparison(cfg: DictConfig) -> Plan:
    """The trials of a composed `voxlift-compare`, all of them checked before the first is trained.

    Raises:
        SettingsError: the settings name no comparison, a trial's are wrong, or the folder holds others.
        ManifestError: the table is at fault, which is told once, not by every training.
    """
    names, seeds = [str(name) for name in cfg.models], [int(seed) for seed in cfg.seeds]
    contests = _contests_of(cfg, names)
    _check_lists(names, seeds)
    folder = choose_folder(cfg)
    trials = lay_out_trials(
        expand_names(names, contests),
        seeds,
        folds=range(max(1, int(cfg.splits.folds))),
        folder=folder,
        shared=shared_overrides(),
        choice_of=lambda name: choose_model(name, contests=list(cfg.best_of)),
    )
    settings = {trial: check_trial(trial) for trial in trials}
    contests = {name: _fit_candidates(name, own, settings) for name, own in contests.items()}
    wanted = expand_names(names, contests)
    kept = {trial: values for trial, values in settings.items() if trial.model in wanted}
    for trial, values in kept.items():
        refuse_other_runs(trial, values)
    _read_table(next(iter(kept.values())).data)
    return Plan(folder, tuple(kept), tuple(kept.values()), tuple(names), contests)


def check_trial(trial: Trial) -> TrainSettings:
    """The settings that a trial's overrides compose to.

    Raises:
        SettingsError: listing what is wrong with them.
    """
    return compose_training(trial.overrides)


def compose_training(overrides: Sequence[str]) -> TrainSettings:
    """The checked settings of a training with these overrides.

    Raises:
        SettingsError: listing what is wrong with them.
    """
    settings = read_settings(compose("train", overrides=list(overrides)))
    if settings.strategy == "hosts":
        raise SettingsError(
            "strategy=hosts: only voxlift-train spreads over several hosts; here each training runs on one."
        )
    return settings


def choose_model(name: str, *, contests: Sequence[str] = ()) -> list[str]:
    """The overrides that choose a model or an experiment by its name, on top of the experiment given for all.

    Args:
        name: of the model or experiment.
        contests: names that a user may have meant, for the message.

    Raises:
        SettingsError: it is neither.
    """
    loader = GlobalHydra.instance().config_loader()
    known = {group: loader.get_group_options(group) for group in ("model", "experiment")}
    shared = HydraConfig.get().runtime.choices.get("experiment")
    if name in known["experiment"]:
        return [f"experiment=[{shared},{name}]" if shared else f"experiment={name}"]
    if name in known["model"]:
        return [*([f"experiment={shared}"] if shared else []), f"model={name}"]
    raise SettingsError(
        f"models: {name} is neither a model ({', '.join(known['model'])}), "
        f"nor an experiment ({', '.join(known['experiment']) or 'there is none'}), "
        f"nor a contest of best_of ({', '.join(contests) or 'there is none'})."
    )


def shared_overrides() -> list[str]:
    """What the user set and every training gets; what a comparison sets itself is refused or left out.

    Of a key that is given twice the last word counts, as it does for Hydra.

    Raises:
        SettingsError: an override of what a comparison varies.
    """
    given = [str(override) for override in HydraConfig.get().overrides.task]
    keys = [override.lstrip("+~").partition("=")[0] for override in given]
    clash = [key for key in keys if key in {"model", "seed", "splits.fold"}]
    if clash:
        raise SettingsError(
            f"{clash[0]}: a comparison sets it itself; use models=[...], seeds=[...] and splits.folds."
        )
    last = {
        override.partition("=")[0]: place for place, override in enumerate(given)
    }  # ~key takes out, +key adds
    return [given[place] for place in sorted(last.values()) if keys[place].partition(".")[0] not in OWN_KEYS]


def choose_folder(cfg: DictConfig) -> Path:
    """The comparison's folder: the one asked for, or one named by what is compared.

    Raises:
        SettingsError: it holds something else.
    """
    if cfg.run_dir is None:
        contests = _contests_of(cfg, [str(name) for name in cfg.models])
        own = [f"models={cfg.models}", f"seeds={cfg.seeds}", *([f"best_of={contests}"] if contests else [])]
        identity = json.dumps(sorted([*shared_overrides(), *own]))
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        return Path(str(cfg.runs_folder)) / f"compare-{cfg.data.name}-{digest}"
    path = Path(str(cfg.run_dir)).expanduser()
    if not (path / "runs").is_dir():
        refuse_used_folder(str(cfg.run_dir))
    return path


def config_dir_arguments() -> Iterator[str]:
    """The user's own configuration folder, handed on to the trainings."""
    for source in HydraConfig.get().runtime.config_sources:
        if source.provider == "command-line":
            yield from ("--config-dir", str(source.path))


def _contests_of(cfg: DictConfig, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The contests among the names, with their candidates."""
    contests = {name: tuple(map(str, cfg.best_of[name])) for name in names if name in cfg.best_of}
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
            console.print(
                f"{contest}: {name} is left out, it needs a cubic preprocess.shape", highlight=False
            )
    return fit


def _read_table(data: DataSettings) -> None:
    """Pass when the user's own table can be used; written tables need no look."""
    if data.name == "manifest":
        from app.subjects.sources import table_options
        from data_pipelines.manifest import load_manifest

        load_manifest(str(data.table), table_options(data))


def _check_lists(names: list[str], seeds: list[int]) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise SettingsError(f"models: expected at least two different names; received [{','.join(names)}].")
    if not seeds or len(set(seeds)) < len(seeds):
        raise SettingsError(f"seeds: expected different numbers; received {seeds}.")
