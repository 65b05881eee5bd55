"""`voxlift-train`: train one model on one split with one seed; the other commands use the run folder."""

from __future__ import annotations

import os

from omegaconf import DictConfig

from voxlift.app.cli.command import run_command
from voxlift.app.config import HostsSettings, SettingsError, TrainSettings
from voxlift.app.config.overrides import list_given_overrides, refuse_unread_columns, to_settings
from voxlift.app.runs.configuration import reopen_settings
from voxlift.app.runtime.devices import check_backend
from voxlift.app.training.baseline import check_training
from voxlift.app.training.strategy.hosts import is_resumed_by_other_host, train_on_hosts


def main() -> None:
    """Run the console script."""
    run_command("train", read=read_settings, job=start, is_supervised=True)


def read_settings(cfg: DictConfig) -> TrainSettings:
    """Return the checked settings of a composed configuration; those of a resumed run are checked later.

    Raises:
        SettingsError: All problems at once.
    """
    settings = to_settings(cfg, TrainSettings)
    if settings.resume is None:
        check_training(settings)
    return settings


def start(settings: TrainSettings) -> int:
    """Start or resume a training, on this host or together with others.

    Returns:
        The exit status.

    Raises:
        SettingsError, ManifestError, VolumeError, LiftError, UserError: The training cannot be done.
    """
    if settings.resume is not None:
        return _resume(settings, settings.resume)
    refuse_unread_columns(settings.model)
    if settings.strategy == "hosts":
        return train_on_hosts(settings, settings.hosts)
    from voxlift.app.training.train import train  # slow; only after the checks

    return train(settings)


def _resume(asked: TrainSettings, path: str) -> int:
    """Resume the run in a folder; of the given settings only epochs, hosts and custom are used."""
    if is_resumed_by_other_host(path, asked.hosts, os.environ):
        return train_on_hosts(None, asked.hosts, resumes=True)
    run, settings = reopen_settings(
        path, overrides=list_given_overrides(), epochs=asked.trainer.epochs, custom=asked.custom
    )
    if settings.strategy == "hosts":
        return train_on_hosts(settings, asked.hosts, resumes=True)
    if asked.hosts != HostsSettings():
        raise SettingsError(f"hosts: {run.path} was trained on one host; leave the keys of hosts out.")
    check_backend()
    from voxlift.app.training.train import train  # as above

    return train(settings, run)


if __name__ == "__main__":
    # Launchers of sweeps pickle the job by the name of its module, which must not be __main__.
    from voxlift.app.cli.train import main as importable_main

    importable_main()
