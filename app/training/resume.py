"""`resume=RUN_DIR`: open a killed training again, with its own settings and precision.

`train` then takes the usual steps; `fit_loop` restores weights and position from the newest checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from voxlift.app.config import HostsSettings, SettingsError, TrainSettings, check_settings
from voxlift.app.config.overrides import key_of
from voxlift.app.errors import shorten
from voxlift.app.files import read_json, read_rows
from voxlift.app.runs.configuration import load_settings, save_settings, write_extension
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.suggestions import suggest_runs
from voxlift.app.training.strategy.hosts.connect import is_launched, leads
from voxlift.data_pipelines.files import remove_leftovers

log = logging.getLogger("voxlift")

# Keys that may stand beside `resume=`, with those of `hosts`; any other would be another training.
ALLOWED = ("resume", "trainer.epochs", "custom", "debug")


def reopen_settings(
    path: str, *, overrides: Sequence[str], epochs: int, custom: Sequence[str] = ()
) -> tuple[RunFolder, TrainSettings]:
    """Return the folder of a run and its own settings, with the epochs that were asked for.

    Args:
        path: The run folder.
        overrides: The command line, as `key=value`.
        epochs: `trainer.epochs` of the command line, used if it is among the overrides.
        custom: Modules to import. Those in the run's configuration are not: it may be another user's.

    Raises:
        SettingsError: No run began there, or something else than more epochs is asked for.
    """
    run = RunFolder(Path(path).expanduser())
    keys = [key_of(override) for override in overrides]
    others = [key for key in keys if key not in ALLOWED and not key.startswith("hosts.")]
    if others:
        raise SettingsError(
            f"resume={path} uses the configuration of that run: {', '.join(others)} cannot be changed (only "
            "trainer.epochs may be raised). For other settings start a new training in another run_dir."
        )
    if not run.config.exists():
        raise SettingsError(
            f"resume={path}: expected the folder of a training; "
            + (f"it has no {run.config.name}. " if run.path.exists() else "there is no such folder. ")
            + suggest_runs(run.path)
        )
    settings = _load_checked(run)
    wanted = epochs if "trainer.epochs" in keys else settings.trainer.epochs
    if wanted < settings.trainer.epochs:
        raise SettingsError(
            f"trainer.epochs={wanted}: expected at least the {settings.trainer.epochs} epochs of that run."
        )
    trainer = replace(settings.trainer, epochs=wanted)
    return run, replace(settings, trainer=trainer, run_dir=str(run.path), custom=list(custom))


def _load_checked(run: RunFolder) -> TrainSettings:
    """Return the settings of a run, whose values a damaged or edited file may have changed."""
    settings = load_settings(run)
    try:
        check_settings(settings)
    except SettingsError as error:
        raise SettingsError(f"{run.config}: expected settings of a training.\n{shorten(error)}") from error
    return settings


def is_resumed_by_other_host(path: str, hosts: HostsSettings, environment: Mapping[str, str]) -> bool:
    """Return whether only host 0 has the run folder, which then sends what this host needs."""
    has_folder = RunFolder(Path(path).expanduser()).config.exists()
    return not has_folder and is_launched(hosts, environment) and not leads(hosts, environment)


def is_complete(run: RunFolder, settings: TrainSettings) -> bool:
    """Return whether the run is finished and no more epochs are asked for."""
    return run.is_finished and load_settings(run).trainer.epochs >= settings.trainer.epochs


def reopen_run(run: RunFolder, settings: TrainSettings) -> None:
    """Mark the run as unfinished, and save the number of epochs that it has now."""
    done = len(read_rows(run.history)) if run.history.exists() else 0
    remove_leftovers(run.path)
    log.info("Resuming %s after %d of %d epochs", run.path, done, settings.trainer.epochs)
    if run.is_finished:
        run.metrics.replace(run.previous_metrics)
    planned = load_settings(run).trainer.epochs
    if planned != settings.trainer.epochs:
        write_extension(run, settings, planned=planned, trained=done)
        save_settings(settings, run)


def saved_precision(run: RunFolder, settings: TrainSettings) -> str:
    """Return the policy that the run began with; `auto` might choose another one on this machine.

    Raises:
        SettingsError: The file that holds it is damaged.
    """
    if not run.environment.exists():  # killed before it was written, so nothing has been trained yet
        return settings.precision
    return str(read_json(run.environment).get("precision", settings.precision))
