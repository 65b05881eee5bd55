"""Define the points of the study of the batch size, and the types of its measurements.

A point is a batch size with a rule for the learning rate and a length of training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxlift.app.comparison.trial import Outcome
from voxlift.app.config.commands import StudySettings
from voxlift.app.config.studies import BatchSizeStudy

Answer = Mapping[str, Any]


@dataclass(frozen=True)
class BatchPoint:
    """One way to train with one batch size.

    Attributes:
        batch_size: Volumes per step.
        scaling: Rule for the learning rate over the batch size: none, sqrt, linear.
        equal: What the training has in common with the reference: epochs, steps, or both (the reference).
        epochs: Passes over the data.
        steps: Steps of the optimiser.
        learning_rate: Peak learning rate.
        warmup_epochs: Epochs of warm-up, the same share of the training as the reference's.
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
        """Name for folders and tables."""
        return f"batch{self.batch_size}" + ("" if self.equal == "both" else f"-{self.scaling}-{self.equal}")

    @property
    def overrides(self) -> list[str]:
        """Overrides of the training."""
        return [
            f"trainer.batch_size={self.batch_size}",
            f"trainer.epochs={self.epochs}",
            f"optimizer.learning_rate={self.learning_rate:.8g}",
            f"optimizer.warmup_epochs={self.warmup_epochs:.8g}",
        ]


@dataclass(frozen=True)
class AccumulatedBatch:
    """The measurement of a batch whose gradients are accumulated from microbatches.

    Attributes:
        batch_size: Volumes per step.
        microbatches: Number of microbatches per step.
        answer: Answer of the measurement `steps`.
    """

    batch_size: int
    microbatches: int
    answer: Answer

    @property
    def name(self) -> str:
        """Text such as `32 as 4 x 8`."""
        return f"{self.batch_size} as {self.microbatches} x {self.batch_size // self.microbatches}"

    @property
    def overrides(self) -> str:
        """Overrides of a training with such steps."""
        size = self.batch_size // self.microbatches
        return f"trainer.batch_size={size} trainer.accumulate={self.microbatches}"


@dataclass(frozen=True)
class SearchResult:
    """The result of a search for the largest number that fits.

    Attributes:
        fits: Largest tried number that fits; 0 where not even the first does.
        fails: Smallest tried number that does not fit; None where none is known.
        tried: Every tried number in order, with whether it fits; None for no answer, which ends the search.
    """

    fits: int
    fails: int | None
    tried: tuple[tuple[int, bool | None], ...]

    @property
    def unanswered(self) -> int | None:
        """The number whose trial gave no answer, if one did."""
        return next((number for number, answer in self.tried if answer is None), None)

    def may_fit(self, number: int) -> bool:
        """Return whether a number fits, or is not known to fail where the search ended early."""
        is_open = self.unanswered is not None and (self.fails is None or number < self.fails)
        return number <= self.fits or is_open


@dataclass(frozen=True)
class MemorySearch:
    """The search for the largest batch that fits into memory.

    Attributes:
        largest: Result of the search.
        limit_bytes: Memory limit; None for all of a GPU's memory.
        limit_name: Description of the limit.
        how: How the limit was enforced.
        bytes_per_volume: Slope of the peak memory over the batch size; nan where it is unknown.
        problem: Why the search ended early; empty where it did not.
    """

    largest: SearchResult
    limit_bytes: int | None
    limit_name: str
    how: str
    bytes_per_volume: float
    problem: str = ""


@dataclass(frozen=True)
class BatchFindings:
    """Everything that was measured and trained.

    Attributes:
        points: Trained points, in order.
        outcomes: Outcomes of all trainings.
        steps: Measured steps by batch size.
        accumulated: The largest of them once more with microbatches; None where it cannot be divided.
        memory: Search for the largest batch.
        noise: Gradient noise scale, `start` and `trained`; empty where it could not be measured.
    """

    points: Sequence[BatchPoint]
    outcomes: Sequence[Outcome]
    steps: Mapping[int, Answer]
    accumulated: AccumulatedBatch | None
    memory: MemorySearch
    noise: Answer


def build_points(
    settings: StudySettings, sizes: Sequence[int], *, steps_per_epoch: Mapping[int, int]
) -> list[BatchPoint]:
    """Return the reference, and every other batch size with every scaling rule and every length of training.

    Args:
        settings: Settings with `trainer.batch_size` and the learning rate of the reference.
        sizes: Batch sizes, the reference among them.
        steps_per_epoch: Batches per epoch, by batch size.
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
            for rule in resolve_scaling(study, settings.optimizer.name):
                own = epochs if equal == "epochs" else max(1, round(total / steps_per_epoch[size]))
                scaled = rate * scale_rate(rule, size / reference)
                steps = own * steps_per_epoch[size]
                points.append(BatchPoint(size, rule, equal, own, steps, scaled, warmup * own))
    return points


def resolve_scaling(study: BatchSizeStudy, optimizer: str) -> list[str]:
    """Return the scaling rules asked for, each once, with `auto` replaced by the optimiser's rule.

    The gradient's noise falls with the root of the batch size. An adaptive optimizer divides by it, so its
    learning rate grows with the root; that of plain SGD grows in proportion.

    Source:
        Goyal et al. 2017, arXiv:1706.02677 (linear); Malladi et al. 2022, arXiv:2205.10287 (root).
    """
    auto = "linear" if optimizer == "SGD" else "sqrt"
    return list(dict.fromkeys(auto if name == "auto" else name for name in study.scaling))


def scale_rate(rule: str, ratio: float) -> float:
    """Return the factor of the learning rate for a batch that is `ratio` times the reference.

    >>> scale_rate("sqrt", 4), scale_rate("linear", 4), scale_rate("none", 4)
    (2.0, 4.0, 1.0)
    """
    return {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": float(ratio)}[rule]


def count_microbatches(batch_size: int, most: int) -> int:
    """Return the largest number of equal microbatches up to `most`; 1 where the batch cannot be divided.

    >>> count_microbatches(32, 4), count_microbatches(6, 4), count_microbatches(7, 4)
    (4, 3, 1)
    """
    return max(count for count in range(1, most + 1) if batch_size % count == 0)
