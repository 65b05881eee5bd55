"""`config.yaml` of a run's folder: the resolved configuration, written and read."""

from __future__ import annotations

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from app.files import write_text
from app.runs.folder import RunFolder
from app.settings import SettingsError, TrainSettings


def save_settings(settings: TrainSettings, run: RunFolder) -> None:
    """Write the resolved configuration."""
    write_text(run.config, OmegaConf.to_yaml(OmegaConf.structured(settings)))


def load_settings(run: RunFolder) -> TrainSettings:
    """The configuration that a run was made with.

    Raises:
        SettingsError: the file cannot be read, or holds keys that this version does not know.
    """
    try:
        saved = OmegaConf.merge(OmegaConf.structured(TrainSettings), OmegaConf.load(run.config))
        settings = OmegaConf.to_object(saved)
    except (OmegaConfBaseException, OSError, ValueError) as error:
        raise SettingsError(
            f"{run.config}: expected a configuration that voxlift-train wrote; {error}"
        ) from error
    if not isinstance(settings, TrainSettings):
        raise SettingsError(f"{run.config}: expected a configuration that voxlift-train wrote.")
    return settings
