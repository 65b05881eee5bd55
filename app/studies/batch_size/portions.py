"""A batch in portions: the same step of the optimiser, its gradients accumulated from smaller batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voxlift.app.report.quantities import format_quantity


@dataclass(frozen=True)
class Portioned:
    """A batch that was measured in portions.

    Attributes:
        batch_size: Volumes of a step.
        portions: Batches that it is made of.
        answer: What was measured.
    """

    batch_size: int
    portions: int
    answer: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As a person reads it."""
        return f"{self.batch_size} as {self.portions} x {self.batch_size // self.portions}"

    @property
    def overrides(self) -> str:
        """What makes a training take such steps."""
        return f"trainer.batch_size={self.batch_size // self.portions} trainer.accumulate={self.portions}"


def cut_batch(batch_size: int, most: int) -> int:
    """The number of equal portions, at most so many; 1 where the batch cannot be cut so.

    >>> cut_batch(32, 4), cut_batch(6, 4), cut_batch(7, 4), cut_batch(2, 4)
    (4, 3, 1, 2)
    """
    return max(portions for portions in range(1, most + 1) if batch_size % portions == 0)


def say_portions(portioned: Portioned | None, plain: Mapping[str, Any]) -> list[str]:
    """What accumulation saves and what it costs.

    Args:
        portioned: As measured, if it was.
        plain: The measurement of the same batch in one piece.
    """
    if portioned is None:
        return []
    one = portioned.answer
    peak, whole = float(one["peak_memory_bytes"]), float(plain["peak_memory_bytes"])
    speed = float(one["volumes_per_second"]) / float(plain["volumes_per_second"])
    sentence = (
        f"Gradient accumulation: a step of {portioned.name} volumes ({portioned.overrides}) peaks at "
        f"{format_quantity(peak, 'B')} instead of {format_quantity(whole, 'B')} and runs at {speed:.2f} "
        "times the speed; batch normalisation then sees the portions, not the whole."
    )
    return [sentence]
