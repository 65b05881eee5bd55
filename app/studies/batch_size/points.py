"""The trainings of a study of the batch size: sizes, rules for the learning rate, what stays equal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxlift.app.comparison.trial import Outcome
from voxlift.app.config.commands import BatchSizeStudy, StudySettings
from voxlift.app.report.formatting import format_quantity
from voxlift.app.studies.batch_size.memory import MemoryFound


@dataclass(frozen=True)
class BatchPoint:
    """One way to train with one batch size.

    Attributes:
        batch_size: Volumes per step.
        scaling: Rule by which the learning rate follows the batch size: none, sqrt, linear.
        equal: What the training has in common with the reference: epochs, steps, or both (the reference).
        epochs: Passes over the data.
        steps: Steps of the optimiser.
        learning_rate: At its peak.
        warmup_epochs: The same share of the training as the reference's.
    """

    batch_size: int
    scaling: str
    equal: str
    epochs: int
    steps: int
    learning_rate: float
    warmup_epochs: float

    @property
    def label(self) -> str:
        """A name for folders and tables."""
        return f"batch{self.batch_size}" + ("" if self.equal == "both" else f"-{self.scaling}-{self.equal}")

    @property
    def overrides(self) -> list[str]:
        """What makes the training."""
        return [
            f"trainer.batch_size={self.batch_size}",
            f"trainer.epochs={self.epochs}",
            f"optimizer.learning_rate={self.learning_rate:.8g}",
            f"optimizer.warmup_epochs={self.warmup_epochs:.8g}",
        ]


def scaling_rules(study: BatchSizeStudy, optimizer: str) -> list[str]:
    """The rules asked for, each once, with `auto` made plain.

    The gradient's noise falls with the root of the batch size: what an adaptive optimiser divides by follows
    it, so its rate grows with the root; plain SGD's grows in proportion.

    Source: Goyal et al. 2017, arXiv:1706.02677 (linear); Malladi et al. 2022, arXiv:2205.10287 (root).
    """
    auto = "linear" if optimizer == "SGD" else "sqrt"
    return list(dict.fromkeys(auto if name == "auto" else name for name in study.scaling))


def lay_out_points(
    settings: StudySettings, sizes: Sequence[int], *, steps_per_epoch: dict[int, int]
) -> list[BatchPoint]:
    """The reference, and every other batch size with every rule and every equality.

    Args:
        settings: With `trainer.batch_size` and the learning rate of the reference.
        sizes: Batch sizes, the reference among them.
        steps_per_epoch: Batches that make an epoch, by batch size.
    """
    study, reference = settings.study, settings.trainer.batch_size
    epochs, rate = int(study.epochs), settings.optimizer.learning_rate
    total, warmup = epochs * steps_per_epoch[reference], settings.optimizer.warmup_epochs / epochs
    points = []
    for size in sizes:
        if size == reference:
            points.append(BatchPoint(size, "none", "both", epochs, total, rate, warmup * epochs))
            continue
        for equal in study.equal:
            for rule in scaling_rules(study, settings.optimizer.name):
                own = epochs if equal == "epochs" else max(1, round(total / steps_per_epoch[size]))
                scaled = rate * scale_rate(rule, size / reference)
                steps = own * steps_per_epoch[size]
                points.append(BatchPoint(size, rule, equal, own, steps, scaled, warmup * own))
    return points


def scale_rate(rule: str, ratio: float) -> float:
    """The factor of the learning rate for a batch that is `ratio` times the reference.

    >>> scale_rate("sqrt", 4), scale_rate("linear", 4), scale_rate("none", 4)
    (2.0, 4.0, 1.0)
    """
    return {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": float(ratio)}[rule]


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


Answer = Mapping[str, Any]


@dataclass(frozen=True)
class BatchFindings:
    """All that was measured and trained.

    Attributes:
        points: What was trained, in order.
        outcomes: What became of every point's trainings.
        steps: The measured steps of each batch size.
        portioned: The largest of them once more, in portions; None where it cannot be cut.
        memory: The search for the largest batch.
        noise: The gradient noise scale, `start` and `trained`; empty where it could not be measured.
    """

    points: Sequence[BatchPoint]
    outcomes: Sequence[Outcome]
    steps: Mapping[int, Answer]
    portioned: Portioned | None
    memory: MemoryFound
    noise: Answer
