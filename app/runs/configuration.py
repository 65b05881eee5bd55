"""`config.yaml` of a run folder: the resolved configuration, written and read."""

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
    """Return the configuration of a run; keys that are newer than the run have their defaults.

    Raises:
        SettingsError: The file cannot be read, or holds keys that this version does not know.
    """
    return read_config(
        run.config, lambda _: TrainSettings(), expected="a configuration written by voxlift-train"
    )


def read_config(file: Path, schema: Callable[[Any], Settings], *, expected: str) -> Settings:
    """Return a saved configuration as a value of its schema; keys that it lacks have the schema's defaults.

    Args:
        file: YAML file.
        schema: Returns the default settings, of the expected type, for the content of the file.
        expected: What the file should be, for the error message.

    Raises:
        SettingsError: The file cannot be read, or holds keys that the schema does not know.
    """
    try:
        saved = OmegaConf.load(file)
        defaults = schema(saved)
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(defaults), saved))
    except (OmegaConfBaseException, YAMLError, OSError, ValueError, KeyError) as error:
        raise SettingsError(f"{file}: expected {expected}; {error}") from error
    if not isinstance(settings, type(defaults)):
        raise SettingsError(f"{file}: expected {expected}.")
    return settings
