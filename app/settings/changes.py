"""What differs between the settings of two trainings, one of which an earlier version may have saved."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from voxlift.app.dotted import flatten
from voxlift.app.settings.commands import TrainSettings
from voxlift.data_pipelines.augment import Augment

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
