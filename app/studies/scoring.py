"""What a study's points reached on validation: the score over seeds, and which points can be told apart."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxlift.app.evaluation.bootstrap import model_intervals, point_metrics
from voxlift.app.evaluation.intervals import RESAMPLES
from voxlift.app.evaluation.paired import Comparison, compare_models
from voxlift.app.evaluation.verdict import SIGNIFICANT, format_p
from voxlift.app.studies.trainings import complete_points, cost_of, validation_scores
from voxlift.app.trials.trial import Trial

if TYPE_CHECKING:
    from voxlift.app.evaluation.scores import Scores

TOLERANCE = 0.01  # of AUC: what nobody would pay for


@dataclass(frozen=True)
class PointScore:
    """One point's validation score and costs.

    Attributes:
        label: Of the point.
        auc: Mean over seeds, each at its best epoch.
        low: Lower end of the 95 % interval over subjects (bootstrap; all seeds of a subject together).
        high: Upper end.
        by_seed: The AUC of each seed.
        cost: What `metrics.json` calls cost, averaged over seeds.
    """

    label: str
    auc: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    cost: Mapping[str, float]

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; nan for a single one."""
        return statistics.stdev(self.by_seed) if len(self.by_seed) > 1 else float("nan")


@dataclass(frozen=True)
class Standing:
    """A point against a reference: the paired difference of AUC (point minus reference), its interval, and p.

    The p-value is Holm-adjusted over all points that are set against that reference.
    """

    difference: float
    low: float
    high: float
    p: float

    @property
    def is_worse(self) -> bool:
        """Whether the data show that the point scores less."""
        return self.high < 0 and self.p < SIGNIFICANT

    @property
    def is_better(self) -> bool:
        """Whether the data show that the point scores more."""
        return self.low > 0 and self.p < SIGNIFICANT

    @property
    def verdict(self) -> str:
        """`worse`, `better` or `not told apart`."""
        return "worse" if self.is_worse else "better" if self.is_better else "not told apart"

    @property
    def ground(self) -> str:
        """The verdict with its p-value; what speaks against an interval that excludes 0 is said."""
        text = f"{self.verdict}, p {format_p(self.p)}"
        if self.verdict == "not told apart" and not self.low <= 0 <= self.high:
            text += ": the interval alone excludes 0, but not after adjusting for all that were tried"
        return text


def read_points(trials: Sequence[Trial]) -> tuple[dict[str, PointScore], dict[str, list[Scores]]]:
    """The outcome of every point that has all of its seeds, and the scores behind it."""
    cells = complete_points(trials)
    scores = {label: [validation_scores(trial) for trial in of_point] for label, of_point in cells.items()}
    intervals = model_intervals(scores, resamples=RESAMPLES)
    outcomes = {}
    for label, of_point in cells.items():
        low, high = intervals[label]["auc"]
        outcomes[label] = PointScore(
            label=label,
            auc=point_metrics(scores[label])["auc"],
            low=low,
            high=high,
            by_seed=tuple(point_metrics(one)["auc"] for one in scores[label]),
            cost=cost_of(of_point),
        )
    return outcomes, scores


def stand_against(scores: Mapping[str, Sequence[Scores]], reference: str) -> dict[str, Standing]:
    """Every other point against a reference, on the same subjects and seeds."""
    if len(scores) < 2:
        return {}
    pairs: Sequence[Comparison] = compare_models(scores, reference=reference, resamples=RESAMPLES)
    found = {}
    for pair in pairs:
        one = pair.differences["auc"]
        found[pair.second] = Standing(one.difference, one.low, one.high, pair.adjusted["bootstrap"])
    return found


def best_label(outcomes: Mapping[str, PointScore]) -> str:
    """The point with the highest AUC; of equal ones the first."""
    return max(outcomes, key=lambda label: outcomes[label].auc)


def pick_cheapest(
    outcomes: Mapping[str, PointScore], standings: Mapping[str, Standing], costs: Mapping[str, float]
) -> str:
    """The cheapest point that scores like the best: not shown to be worse, and its AUC within 0.01.

    Args:
        outcomes: The points to choose from.
        standings: Of the others against the best of them.
        costs: Of each point; of equal ones the higher AUC wins.
    """
    best = best_label(outcomes)
    close = [
        label
        for label, one in outcomes.items()
        if label == best or (one.auc >= outcomes[best].auc - TOLERANCE and not standings[label].is_worse)
    ]
    return min(close, key=lambda label: (costs[label], -outcomes[label].auc))
