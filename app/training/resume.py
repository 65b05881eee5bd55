"""`resume=RUN_DIR`: a killed training opened again, with its own settings and precision."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxlift.app.config import HostsSettings, SettingsError, TrainSettings
from voxlift.app.config.overrides import key_of
from voxlift.app.runs.configuration import load_settings, save_settings
from voxlift.app.runs.folder import RunFolder, hint_at_runs
from voxlift.app.training.strategy.hosts.cluster_environment import find_member, is_placed

log = logging.getLogger("voxlift")

# Beside `resume=`; all else would be another training. Which host this is (`hosts.*`) may change as well.
ALLOWED = ("resume", "trainer.epochs", "debug")


def reopen_settings(path: str, *, overrides: Sequence[str], epochs: int) -> tuple[RunFolder, TrainSettings]:
    """A run's folder and its own settings, with the epochs that were asked for.

    Args:
        path: the run folder.
        overrides: what stands on the command line, as `key=value`.
        epochs: the command line's `trainer.epochs`, if it is among the overrides.

    Raises:
        SettingsError: no run began there, or something else than more epochs is asked for.
    """
    run = RunFolder(Path(path).expanduser())
    keys = [key_of(override) for override in overrides]
    others = [key for key in keys if key not in ALLOWED and not key.startswith("hosts.")]
    if others:
        raise SettingsError(
            f"resume={path} goes on with that run's own configuration: {', '.join(others)} cannot be changed "
            "(only trainer.epochs may be raised). Train anew in another run_dir for that."
        )
    if not run.config.exists():
        raise SettingsError(
            f"resume={path}: expected the folder of a training that has begun; "
            + ("there is no such folder. " if not run.path.exists() else f"no {run.config.name} is in it. ")
            + hint_at_runs(run.path)
        )
    settings = load_settings(run)
    wanted = epochs if "trainer.epochs" in keys else settings.trainer.epochs
    if wanted < settings.trainer.epochs:
        raise SettingsError(
            f"trainer.epochs={wanted}: that run is to have {settings.trainer.epochs} epochs; "
            "a resumed training can have more, not fewer."
        )
    trainer = replace(settings.trainer, epochs=wanted)
    return run, replace(settings, trainer=trainer, run_dir=str(run.path))


def resumes_elsewhere(path: str, hosts: HostsSettings, environment: Mapping[str, str]) -> bool:
    """Whether host 0 alone has the run's folder: this process, another host's, is given what it needs."""
    if RunFolder(Path(path).expanduser()).config.exists() or not is_placed(hosts, environment):
        return False
    return not find_member(hosts, environment).leads


def is_complete(run: RunFolder, settings: TrainSettings) -> bool:
    """Whether nothing is left to do: the run is finished, and no more epochs are asked for."""
    return run.is_finished and load_settings(run).trainer.epochs >= settings.trainer.epochs


def begin_again(run: RunFolder, settings: TrainSettings) -> None:
    """Mark the run as unfinished, and save the number of epochs that it has now."""
    if run.is_finished:
        run.metrics.replace(run.path / "metrics.before.json")
    if load_settings(run).trainer.epochs != settings.trainer.epochs:
        save_settings(settings, run)


def saved_precision(run: RunFolder, settings: TrainSettings) -> str:
    """The policy that the run began with, which `auto` might choose otherwise on another machine."""
    try:
        environment: dict[str, Any] = json.loads(run.environment.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return settings.precision
    return str(environment.get("precision", settings.precision))
