"""Settings as a training's command line takes them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from app.comparison.trials import quote_override
from app.settings import TrainSettings

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
    return [one for one in overrides if one.lstrip("+~").partition("=")[0] not in keys]


def value_of(settings: TrainSettings, key: str) -> Any:  # noqa: ANN401 - whatever a setting holds
    """The value of a dotted key; of a group its name; None where there is no such key."""
    node: Any = asdict(settings)
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node.get("name") if isinstance(node, Mapping) and "name" in node else node
