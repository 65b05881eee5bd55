"""`voxlift-train`: one model, one split, one seed; leaves a run folder that every other command can read."""

from __future__ import annotations

import os

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from voxlift.app.cli.command import open_command
from voxlift.app.config import HostsSettings, SettingsError, TrainSettings
from voxlift.app.config.overrides import to_settings
from voxlift.app.runtime.devices import check_backend
from voxlift.app.training.checks import check_training
from voxlift.app.training.resume import reopen_settings, resumes_elsewhere
from voxlift.app.training.strategy.hosts.supervise import supervise


def main() -> None:
    """The console script."""
    open_command("train", read=read_settings, job=start, is_supervised=True)


def read_settings(cfg: DictConfig) -> TrainSettings:
    """The composed configuration as values, checked; one that goes on with a run is held to that run later.

    Raises:
        SettingsError: listing every problem.
    """
    settings = to_settings(cfg, TrainSettings)
    if settings.resume is None:
        check_training(settings)
    return settings


def start(settings: TrainSettings) -> int:
    """A new training, or one that goes on; on this host, or together with others.

    Returns:
        The exit status.

    Raises:
        SettingsError, ManifestError, VolumeError, LiftError, UserError: what stands in the way.
    """
    if settings.resume is not None:
        return _start_again(settings, settings.resume)
    if settings.strategy == "hosts":
        return supervise(settings, settings.hosts)
    from voxlift.app.training.train import train  # behind the checks, which shall not wait for what trains

    return train(settings)


def _start_again(asked: TrainSettings, path: str) -> int:
    """Go on with the run in a folder; of what is asked for only epochs and hosts count."""
    if resumes_elsewhere(path, asked.hosts, os.environ):
        return supervise(None, asked.hosts, resumes=True)
    overrides = [str(override) for override in HydraConfig.get().overrides.task]
    run, settings = reopen_settings(path, overrides=overrides, epochs=asked.trainer.epochs)
    if settings.strategy == "hosts":
        return supervise(settings, asked.hosts, resumes=True)
    if asked.hosts != HostsSettings():
        raise SettingsError(f"hosts: {run.path} is a run of one host; leave the keys of hosts out.")
    check_backend()
    from voxlift.app.training.train import resume  # as above

    return resume(run, settings)


if __name__ == "__main__":
    from voxlift.app.cli.train import main as main_by_name  # a launcher hands the job on by its module's name

    main_by_name()
