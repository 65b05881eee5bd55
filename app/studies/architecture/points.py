"""Which networks a study of the architecture trains: the base, and what is changed in it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from voxlift.app.comparison.trial import Outcome
from voxlift.app.config import TrainSettings
from voxlift.app.config.overrides import format_override, format_value, value_of
from voxlift.app.report.style import anchor

BASE = "base"


@dataclass(frozen=True)
class Variant:
    """One network.

    Attributes:
        label: A name for folders and tables.
        changes: What is not as in the base, by dotted key.
        factor: The one key that was changed; empty for the base, `several` for a combination.
    """

    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    factor: str = ""

    @property
    def overrides(self) -> list[str]:
        """What makes the network out of the base."""
        return [format_override(key, value) for key, value in self.changes.items()]

    @property
    def name(self) -> str:
        """The changes as a person reads them."""
        if not self.changes:
            return BASE
        return ", ".join(f"{key.rpartition('.')[2]} {_spoken(value)}" for key, value in self.changes.items())

    def starts_trained(self, base: TrainSettings) -> bool:
        """Whether its kernels are inflated from a slice model's, which must be trained first."""
        is_chosen = "model.init" in self.changes and self.changes["model.init"] != "random"
        return is_chosen and "model.baseline" not in self.changes and not base.model.pretrain


def lay_out_variants(
    values: Mapping[str, Sequence[Any]], base: TrainSettings, *, design: str
) -> list[Variant]:
    """The base, then one change at a time, or every combination of the values.

    Args:
        values: Of each setting, by dotted key; the base's own value stands for no change.
        base: The settings that are changed.
        design: `one_at_a_time` or `grid`.
    """
    changes = {
        key: [value for value in options if not is_same_value(value, value_of(base, key))]
        for key, options in values.items()
    }
    if design == "one_at_a_time":
        single = [_variant({key: value}) for key, options in changes.items() for value in options]
        return [Variant(BASE), *single]
    options = [[(key, None), *((key, value) for value in found)] for key, found in changes.items()]
    combinations = (
        {key: value for key, value in chosen if value is not None} for chosen in itertools.product(*options)
    )
    return [_variant(chosen) if chosen else Variant(BASE) for chosen in combinations]


def is_same_value(one: object, other: object) -> bool:
    """Whether two settings mean the same, whatever kind of number they are written as."""
    if isinstance(one, int | float) and isinstance(other, int | float):
        return float(one) == float(other)
    return format_value(one) == format_value(other)


def _variant(changes: dict[str, Any]) -> Variant:
    parts = [f"{key.rpartition('.')[2]}-{anchor(format_value(value))}" for key, value in changes.items()]
    return Variant("-".join(parts), changes, next(iter(changes)) if len(changes) == 1 else "several")


def _spoken(value: object) -> str:
    if isinstance(value, Mapping):
        return "/".join(str(item) for item in value.values())
    return str(value)


@dataclass(frozen=True)
class ArchitectureFindings:
    """What was trained.

    Attributes:
        base: The settings that were changed.
        variants: All that were wanted, the base first.
        outcomes: What became of their trainings.
        twins: For each variant that was not trained the one that is the same network.
        refusals: A sentence for each variant that no training could follow.
    """

    base: TrainSettings
    variants: Sequence[Variant]
    outcomes: Sequence[Outcome]
    twins: Mapping[str, Variant]
    refusals: Sequence[str]
