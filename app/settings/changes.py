"""What differs between the settings of two trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from app.settings import TrainSettings

INDIFFERENT = ("run_dir", "runs_folder", "debug", "cache", "logger")  # settings that change no result


def list_changes(saved: TrainSettings, wanted: TrainSettings) -> list[str]:
    """What differs between two trainings' settings, as `key: wanted instead of saved`.

    A run fills in the classes that the user left open; these are no difference.
    """
    had, wants = dict(_flatten(asdict(saved))), dict(_flatten(asdict(wanted)))
    if not wanted.data.classes:
        wants["data.classes"] = had.get("data.classes")
    keys = dict.fromkeys([*wants, *had])
    return [
        f"{key}: {wants.get(key)} instead of {had.get(key)}"
        for key in keys
        if key.partition(".")[0] not in INDIFFERENT and wants.get(key) != had.get(key)
    ]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
