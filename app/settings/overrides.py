"""Settings as a training's command line takes them, and those that a command was given."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from voxlift.app.settings import SettingsError, TrainSettings

Settings = TypeVar("Settings")

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def format_override(key: str, value: object) -> str:
    """A setting in Hydra's grammar.

    >>> format_override("model.depth_policy", {"kernel": 1, "stride": "height"})
    'model.depth_policy={kernel:1,stride:height}'
    """
    return f"{key}={format_value(value)}"


def format_value(value: object) -> str:
    """A value in Hydra's grammar, quoted where it needs to be."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{format_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(format_value(item) for item in value) + "]"
    if isinstance(value, str):
        return value if PLAIN.fullmatch(value) else quote_override(value)
    return repr(value)


def without_keys(overrides: Sequence[str], keys: Collection[str]) -> list[str]:
    """The overrides of other keys: a group that is chosen twice would be refused."""
    return [one for one in overrides if key_of(one) not in keys]


def value_of(settings: TrainSettings, key: str) -> Any:  # noqa: ANN401 - whatever a setting holds
    """The value of a dotted key; of a group its name; None where there is no such key."""
    node: Any = asdict(settings)
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node.get("name") if isinstance(node, Mapping) and "name" in node else node


def quote_override(value: str) -> str:
    """A path as Hydra's grammar takes it, whatever is in it."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def key_of(override: str) -> str:
    """The dotted key that an override sets, adds or takes out.

    >>> key_of("++model.filters=[8,16]"), key_of("~logger")
    ('model.filters', 'logger')
    """
    return override.lstrip("+~").partition("=")[0]


def given_overrides() -> list[str]:
    """What the user set on the command line."""
    return [str(override) for override in HydraConfig.get().overrides.task]


def given_keys() -> list[str]:
    """The keys that the user set on the command line."""
    return [key_of(override) for override in given_overrides()]


def shared_overrides(who: str, *, refused: Mapping[str, str], own: Collection[str]) -> list[str]:
    """What the user set and every training gets; of a key that is given twice the last word, as for Hydra.

    Args:
        who: sets the refused keys, for the message: `a comparison`, say.
        refused: keys that the user cannot set, each with the way out.
        own: keys, or groups of keys, of the command itself, which no training knows.

    Raises:
        SettingsError: the user set a refused key.
    """
    given, keys = given_overrides(), given_keys()
    clash = [f"{key}: {who} sets it itself; {refused[key]}" for key in keys if key in refused]
    if clash:
        raise SettingsError("\n".join(clash))
    # What takes a key out (~) and what adds it (+) are words of their own.
    last = {override.partition("=")[0]: place for place, override in enumerate(given)}
    return [given[place] for place in sorted(last.values()) if keys[place].partition(".")[0] not in own]


def to_settings(cfg: DictConfig, schema: type[Settings]) -> Settings:
    """A composed configuration as a value of its schema, unchecked.

    Raises:
        TypeError: the configuration was composed from another schema, which is a mistake of ours.
    """
    settings = OmegaConf.to_object(cfg)
    if not isinstance(settings, schema):
        raise TypeError(
            f"expected a configuration with the schema of {schema.__name__}, got {type(settings).__name__}"
        )
    return settings
