"""`voxlift-compare`: several models on the same subjects, folds and seeds, and a paired test.

Each training is a child process: its peak memory is its own, and a crash of one leaves the others' results.
A comparison's folder is named by its settings, so the same command finds finished trainings again and goes
on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from app.cli import run_command
from app.progress import console
from app.runs import RunFolder, load_settings, refuse_used_folder
from app.settings import SettingsError, TrainSettings
from app.train import read_settings
from app.trials import Trial

OWN_KEYS = ("models", "seeds", "run_dir", "runs_folder", "debug", "experiment")
INDIFFERENT = ("run_dir", "runs_folder", "debug", "cache", "logger")  # settings that change no result


def main() -> None:
    """The console script."""
    run_command("compare", compare)


def compare(cfg: DictConfig) -> int:
    """Train what is not trained yet, then set the models side by side.

    Returns:
        The exit status, 0; that of a training which failed.

    Raises:
        SettingsError: the settings name no comparison, or the folder holds another one.
    """
    names, seeds = [str(name) for name in cfg.models], [int(seed) for seed in cfg.seeds]
    _check_lists(names, seeds)
    trials = plan_trials(names, seeds, folds=range(max(1, int(cfg.splits.folds))), folder=_folder(cfg))
    settings = [check_trial(trial) for trial in trials]  # all of them, before the first is trained
    for number, (trial, wanted) in enumerate(zip(trials, settings, strict=True), start=1):
        status = run_trial(trial, wanted, label=f"{number}/{len(trials)}")
        if status:
            return status
    from app.sidebyside import summarise_comparison

    summarise_comparison(trials, folder=_folder(cfg))
    return 0


def plan_trials(
    names: Sequence[str], seeds: Sequence[int], *, folds: Sequence[int], folder: Path
) -> list[Trial]:
    """Every combination of fold, seed and model, with the overrides that make its training."""
    shared = _shared_overrides()
    return [
        _trial(name, fold, seed, shared=shared, folder=folder, has_folds=len(folds) > 1)
        for fold in folds
        for seed in seeds
        for name in names
    ]


def check_trial(trial: Trial) -> TrainSettings:
    """The settings that a trial's overrides compose to.

    Raises:
        SettingsError: listing what is wrong with them.
    """
    return read_settings(compose("train", overrides=list(trial.overrides)))


def run_trial(trial: Trial, settings: TrainSettings, *, label: str) -> int:
    """Train in a child process unless the trial's folder holds the finished run; the child's exit status."""
    title = f"{label}  {trial.run.path.name}"
    if trial.run.is_finished and _same(load_settings(trial.run), settings):
        console.print(f"{title}: finished before, reused", highlight=False)
        return 0
    console.print(f"{title}: training", highlight=False)
    if trial.run.path.exists():
        shutil.rmtree(trial.run.path)  # what a killed training left in this comparison's own folder
    command = [sys.executable, "-m", "app.train", *_config_dir(), *trial.overrides]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - our own module, no shell


def _trial(name: str, fold: int, seed: int, *, shared: list[str], folder: Path, has_folds: bool) -> Trial:
    stem = f"{name}-fold{fold}-seed{seed}" if has_folds else f"{name}-seed{seed}"
    run = RunFolder(folder / "runs" / stem)
    overrides = [*shared, *_choice_of(name), f"seed={seed}", f"run_dir={_quoted(str(run.path))}"]
    if has_folds:
        overrides.append(f"splits.fold={fold}")
    return Trial(name, fold, seed, tuple(overrides), run)


def _check_lists(names: list[str], seeds: list[int]) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise SettingsError(f"models: expected at least two different names; received [{','.join(names)}].")
    if not seeds or len(set(seeds)) < len(seeds):
        raise SettingsError(f"seeds: expected different numbers; received {seeds}.")


def _choice_of(name: str) -> list[str]:
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


def _shared_overrides() -> list[str]:
    """What the user set and every training gets; what a comparison sets itself is refused or left out."""
    given = [str(override) for override in HydraConfig.get().overrides.task]
    keys = [override.lstrip("+~").partition("=")[0] for override in given]
    clash = [key for key in keys if key in {"model", "seed", "splits.fold"}]
    if clash:
        raise SettingsError(
            f"{clash[0]}: a comparison sets it itself; use models=[...], seeds=[...] and splits.folds."
        )
    return [override for override, key in zip(given, keys, strict=True) if key not in OWN_KEYS]


def _folder(cfg: DictConfig) -> Path:
    """The comparison's folder: the one asked for, or one named by what is compared."""
    identity = json.dumps(sorted([*_shared_overrides(), f"models={cfg.models}", f"seeds={cfg.seeds}"]))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    if cfg.run_dir is None:
        return Path(str(cfg.runs_folder)) / f"compare-{cfg.data.name}-{digest}"
    path = Path(str(cfg.run_dir)).expanduser()
    if not (path / "runs").is_dir():
        refuse_used_folder(str(cfg.run_dir))
    return path


def _same(saved: TrainSettings, wanted: TrainSettings) -> bool:
    """Whether two settings give the same training; a run fills in the classes that the user left open."""
    if not wanted.data.classes:
        wanted.data.classes = saved.data.classes
    return _essence(saved) == _essence(wanted)


def _essence(settings: TrainSettings) -> dict[str, object]:
    return {key: value for key, value in asdict(settings).items() if key not in INDIFFERENT}


def _config_dir() -> Iterator[str]:
    """The user's own configuration folder, handed on to the trainings."""
    for source in HydraConfig.get().runtime.config_sources:
        if source.provider == "command-line":
            yield from ("--config-dir", str(source.path))


def _quoted(value: str) -> str:
    """A path as Hydra's grammar takes it, whatever is in it."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


if __name__ == "__main__":
    main()
