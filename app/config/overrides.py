"""Settings as a training's command line takes them, and those that a command was given."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from voxlift.app.config import SettingsError
from voxlift.app.config.commands import TrainSettings
from voxlift.data_pipelines.augment import Augment

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


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted keys; an empty one stays as it is.

    >>> flatten({"trainer": {"epochs": 3}, "augment": {}, "seed": 0})
    {'trainer.epochs': 3, 'augment': {}, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        is_group = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if is_group else {f"{prefix}{key}": value}
    return flat


INDIFFERENT = ("run_dir", "runs_folder", "debug", "cache", "logger")  # settings that change no result


def list_changes(saved: TrainSettings, wanted: TrainSettings, *, but: Collection[str] = ()) -> list[str]:
    """What differs between two trainings' settings, as `key: wanted instead of saved`.

    A run fills in the classes that the user left open; these are no difference. Nor are the table's columns
    to a network, which reads none.

    Args:
        saved: of a run or a study that exists.
        wanted: of the one that is asked for.
        but: dotted keys that may differ, besides those that change no result.
    """
    had, wants = spell_out(saved, but=but), spell_out(wanted, but=but)
    if not wanted.data.classes:
        wants["data.classes"] = had.get("data.classes")
    if saved.model.kind != "table" and wanted.model.kind != "table":
        wants["model.columns"] = had.get("model.columns")
    return [
        f"{key}: {wants.get(key)} instead of {had.get(key)}"
        for key in dict.fromkeys([*wants, *had])
        if wants.get(key) != had.get(key)
    ]


def spell_out(settings: TrainSettings, *, but: Collection[str] = ()) -> dict[str, Any]:
    """Every setting that may change a result, by its dotted key.

    The augmentation is a free group: a key that it leaves out has the default that the augmentation gives it.
    So settings that were saved before a key existed say the same as today's with its default.

    Args:
        settings: of a training, or a study.
        but: further dotted keys to leave out, with all below them.
    """
    values = asdict(settings)
    values["augment"] = _listed(asdict(Augment())) | values["augment"]
    left_out = {*INDIFFERENT, *but}
    return {key: value for key, value in flatten(values).items() if not _stands_under(key, left_out)}


def _listed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Tuples as the lists that a configuration holds."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _stands_under(key: str, groups: Collection[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)
