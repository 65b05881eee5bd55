"""Nested values by their dotted keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
