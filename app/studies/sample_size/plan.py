"""The plan of a pair of models: its variance, and the subjects and seeds that a power needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from voxlift.app.evaluation.sample_size import DifferenceVariance, required_seeds, required_subjects
from voxlift.app.evaluation.scores import Floats

POWERS = (0.8, 0.9)
WIDEST = 2.0  # from -1 to 1


@dataclass(frozen=True, eq=False)
class PairPlan:
    """What is known of the difference between two models before more subjects are collected.

    Attributes:
        first: Name of the first model.
        second: Name of the second.
        variance: Of the difference, for n subjects of each class.
        in_all: The same for n subjects in all, at the prevalence.
        margin: Smallest difference that matters.
        prevalence: Share of positives.
        alpha: Level of the two-sided test.
        draws: `variance.per_subject` in resamples of the comparison's subjects [B]; empty for planned values.
        present: Positive and negative test subjects of the comparison; None for planned values.
        now: As `in_all`, at the comparison's own prevalence; None for planned values.
    """

    first: str
    second: str
    variance: DifferenceVariance
    in_all: DifferenceVariance
    margin: float
    prevalence: float
    alpha: float = 0.05
    draws: Floats = field(default_factory=lambda: np.zeros(0))
    present: tuple[int, int] | None = None
    now: DifferenceVariance | None = None

    @property
    def name(self) -> str:
        """Both models, as text."""
        return f"{self.first} and {self.second}"

    def ends(self) -> Sequence[DifferenceVariance]:
        """Return the variance at both ends of its 95 % interval; nothing for planned values."""
        if not len(self.draws):
            return ()
        low, high = np.quantile(self.draws, [0.025, 0.975])
        return tuple(replace(self.variance, per_subject=float(end)) for end in (low, high))

    @property
    def power_now(self) -> float | None:
        """The power of the comparison as it is, for a difference of the margin."""
        if self.now is None or self.present is None:
            return None
        return self.now.power(sum(self.present), self.margin, alpha=self.alpha)

    @property
    def width_now(self) -> float | None:
        """The expected width of the 95 % interval of the comparison as it is."""
        return None if self.now is None or self.present is None else find_width(self.now, sum(self.present))


@dataclass(frozen=True)
class Need:
    """What a power needs.

    Attributes:
        power: The power.
        per_class: Subjects of each class; None where the spread between seeds alone forbids the power.
        low: Lower end of its 95 % interval, from the uncertainty of the variance; None where unknown.
        high: Upper end.
        in_all: Subjects in all at the prevalence.
        seeds: Where the spread between seeds forbids the power: seeds that allow it.
        per_class_with_seeds: Subjects of each class with so many seeds.
    """

    power: float
    per_class: int | None
    low: int | None = None
    high: int | None = None
    in_all: int | None = None
    seeds: int | None = None
    per_class_with_seeds: int | None = None


def find_width(variance: DifferenceVariance, subjects: float) -> float:
    """Return the expected width of the 95 % interval, at most that of all differences of two AUCs."""
    return min(variance.width(subjects), WIDEST)


def find_need(plan: PairPlan, power: float) -> Need:
    """Return the subjects that a power needs, or where seeds forbid it the seeds that allow it."""
    margin, alpha = plan.margin, plan.alpha

    def subjects(variance: DifferenceVariance) -> int | None:
        return required_subjects(variance, margin, power=power, alpha=alpha)

    per_class = subjects(plan.variance)
    if per_class is None:
        seeds = required_seeds(plan.variance, margin, power=power, alpha=alpha)
        more = None if seeds is None else subjects(replace(plan.variance, seeds=seeds))
        return Need(power, None, seeds=seeds, per_class_with_seeds=more)
    low, high = (subjects(one) for one in plan.ends()) if len(plan.draws) else (None, None)
    return Need(power, per_class, low, high, subjects(plan.in_all))
