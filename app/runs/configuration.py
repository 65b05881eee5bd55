"""`config.yaml` of a run's folder: the resolved configuration, written and read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.files import write_text
from voxlift.app.runs.folder import RunFolder

Settings = TypeVar("Settings")


def save_settings(settings: TrainSettings, run: RunFolder) -> None:
    """Write the resolved configuration."""
    write_text(run.config, OmegaConf.to_yaml(OmegaConf.structured(settings)))


def load_settings(run: RunFolder) -> TrainSettings:
    """The configuration that a run was made with; keys that are newer than it have their defaults.

    Raises:
        SettingsError: the file cannot be read, or holds keys that this version does not know.
    """
    return read_saved(run.config, lambda _: TrainSettings(), told="a configuration that voxlift-train wrote")


def read_saved(file: Path, schema: Callable[[Any], Settings], *, told: str) -> Settings:
    """A saved configuration as a value of its schema; keys that it lacks have the schema's defaults.

    Args:
        file: YAML.
        schema: gives the defaults, of the type that is expected, for what the file holds.
        told: what was expected, for the message.

    Raises:
        SettingsError: the file cannot be read, or holds keys that the schema does not know.
    """
    try:
        saved = OmegaConf.load(file)
        defaults = schema(saved)
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(defaults), saved))
    except (OmegaConfBaseException, YAMLError, OSError, ValueError, KeyError) as error:
        raise SettingsError(f"{file}: expected {told}; {error}") from error
    if not isinstance(settings, type(defaults)):
        raise SettingsError(f"{file}: expected {told}.")
    return settings
