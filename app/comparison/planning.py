"""From the command line of a comparison to its trials: what they share, what they vary, where they go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from app.comparison.reuse import refuse_other_runs
from app.comparison.trials import Trial, lay_out_trials
from app.runs import refuse_used_folder
from app.settings import SettingsError, TrainSettings
from app.train import read_settings

OWN_KEYS = ("models", "seeds", "run_dir", "runs_folder", "debug", "experiment")


@dataclass(frozen=True)
class Plan:
    """A comparison before its first training: where it goes, its trials, and each trial's settings."""

    folder: Path
    trials: tuple[Trial, ...]
    settings: tuple[TrainSettings, ...]


def plan_comparison(cfg: DictConfig) -> Plan:
    """The trials of a composed `voxlift-compare`, all of them checked before the first is trained.

    Raises:
        SettingsError: the settings name no comparison, a trial's are wrong, or the folder holds others.
    """
    names, seeds = [str(name) for name in cfg.models], [int(seed) for seed in cfg.seeds]
    _check_lists(names, seeds)
    folder = choose_folder(cfg)
    trials = lay_out_trials(
        names,
        seeds,
        folds=range(max(1, int(cfg.splits.folds))),
        folder=folder,
        shared=shared_overrides(),
        choice_of=choose_model,
    )
    settings = tuple(check_trial(trial) for trial in trials)
    for trial, wanted in zip(trials, settings, strict=True):
        refuse_other_runs(trial, wanted)
    return Plan(folder, tuple(trials), settings)


def check_trial(trial: Trial) -> TrainSettings:
    """The settings that a trial's overrides compose to.

    Raises:
        SettingsError: listing what is wrong with them.
    """
    return read_settings(compose("train", overrides=list(trial.overrides)))


def choose_model(name: str) -> list[str]:
    """The overrides that choose a model or an experiment by its name, on top of the experiment given for all.

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
        f"models: {name} is neither a model ({', '.join(known['model'])}) "
        f"nor an experiment ({', '.join(known['experiment']) or 'there is none'})."
    )


def shared_overrides() -> list[str]:
    """What the user set and every training gets; what a comparison sets itself is refused or left out.

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
    return [override for override, key in zip(given, keys, strict=True) if key not in OWN_KEYS]


def choose_folder(cfg: DictConfig) -> Path:
    """The comparison's folder: the one asked for, or one named by what is compared.

    Raises:
        SettingsError: it holds something else.
    """
    if cfg.run_dir is None:
        identity = json.dumps(sorted([*shared_overrides(), f"models={cfg.models}", f"seeds={cfg.seeds}"]))
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


def _check_lists(names: list[str], seeds: list[int]) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise SettingsError(f"models: expected at least two different names; received [{','.join(names)}].")
    if not seeds or len(set(seeds)) < len(seeds):
        raise SettingsError(f"seeds: expected different numbers; received {seeds}.")
