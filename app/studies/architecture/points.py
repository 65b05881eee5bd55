"""Define the networks of the study of the architecture: the base, and variants with changed settings."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from voxlift.app.comparison.trial import Outcome
from voxlift.app.config import TrainSettings
from voxlift.app.config.overrides import format_override, format_value, get_value
from voxlift.app.report.pages import slugify

BASE = "base"

# Cost in `metrics.json` -> its label and its unit.
COSTS = {
    "flops": ("operations per volume", ""),
    "parameters": ("parameters", ""),
    "seconds_per_volume": ("inference time", "s"),
    "train_seconds": ("training time", "s"),
    "peak_memory_bytes": ("peak memory", "B"),
}


@dataclass(frozen=True)
class Variant:
    """One network.

    Attributes:
        label: Name for folders and tables.
        changes: Settings that differ from the base, by dotted key.
        factor: The one key that was changed; empty for the base, `several` for a combination.
    """

    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    factor: str = ""

    @property
    def overrides(self) -> list[str]:
        """Overrides that change the base to this network."""
        return [format_override(key, value) for key, value in self.changes.items()]

    @property
    def name(self) -> str:
        """The changes as text."""
        if not self.changes:
            return BASE
        return ", ".join(
            f"{key.rpartition('.')[2]} {_format_change(value)}" for key, value in self.changes.items()
        )

    def needs_slice_model(self, base: TrainSettings) -> bool:
        """Return whether its kernels are inflated from a slice model, which must be trained first."""
        is_inflated = "model.init" in self.changes and self.changes["model.init"] != "random"
        return is_inflated and "model.baseline" not in self.changes and not base.model.pretrain


@dataclass(frozen=True)
class ArchitectureFindings:
    """Everything that was trained.

    Attributes:
        base: Settings that were changed.
        variants: All variants of the design, the base first.
        outcomes: Outcomes of all trainings.
        duplicates: For each variant that was not trained, by label, the variant that is the same network.
        failures: A sentence for each variant that could not be trained.
    """

    base: TrainSettings
    variants: Sequence[Variant]
    outcomes: Sequence[Outcome]
    duplicates: Mapping[str, Variant]
    failures: Sequence[str]


def build_variants(values: Mapping[str, Sequence[Any]], base: TrainSettings, *, design: str) -> list[Variant]:
    """Return the base, then one change at a time, or every combination of the values.

    Args:
        values: Values of each setting by dotted key; the base's own value is no change.
        base: Settings that are changed.
        design: `one_at_a_time` or `grid`.
    """
    changes = {
        key: [value for value in options if not is_same_value(value, get_value(base, key))]
        for key, options in values.items()
    }
    if design == "one_at_a_time":
        single = [_build_variant({key: value}) for key, options in changes.items() for value in options]
        return [Variant(BASE), *single]
    options = [[(key, None), *((key, value) for value in found)] for key, found in changes.items()]
    combinations = (
        {key: value for key, value in chosen if value is not None} for chosen in itertools.product(*options)
    )
    return [_build_variant(chosen) if chosen else Variant(BASE) for chosen in combinations]


def is_same_value(one: object, other: object) -> bool:
    """Return whether two settings mean the same; 1 and 1.0 do."""
    if isinstance(one, int | float) and isinstance(other, int | float):
        return float(one) == float(other)
    return format_value(one) == format_value(other)


def _build_variant(changes: dict[str, Any]) -> Variant:
    parts = [f"{key.rpartition('.')[2]}-{slugify(format_value(value))}" for key, value in changes.items()]
    return Variant("-".join(parts), changes, next(iter(changes)) if len(changes) == 1 else "several")


def _format_change(value: object) -> str:
    return "/".join(map(str, value.values())) if isinstance(value, Mapping) else str(value)
