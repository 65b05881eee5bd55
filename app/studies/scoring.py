"""What a study's points reached on validation: the score over seeds, and which points can be told apart."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxlift.app.comparison.trial import Trial
from voxlift.app.evaluation.bootstrap import model_intervals, point_metrics
from voxlift.app.evaluation.intervals import RESAMPLES
from voxlift.app.evaluation.paired import Comparison, compare_models
from voxlift.app.evaluation.verdict import SIGNIFICANT, format_p
from voxlift.app.report.formatting import format_interval, format_value
from voxlift.app.studies.trainings import complete_points, cost_of, validation_scores

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


SCORE_HEADINGS = ("AUC", "95 %", "SD over seeds")
STANDING_HEADINGS = ("difference", "95 %", "p (Holm)", "verdict")


def score_values(point: PointScore) -> dict[str, Any]:
    """A point's validation score with its interval, and its spread over seeds."""
    return {
        "seeds": len(point.by_seed),
        "val_auc": point.auc,
        "val_auc_low": point.low,
        "val_auc_high": point.high,
        "sd_over_seeds": point.spread,
    }


def standing_values(standing: Standing | None) -> dict[str, Any]:
    """A point's difference from the reference; of the reference itself, None, no difference."""
    return {
        "difference": standing.difference if standing else 0.0,
        "difference_low": standing.low if standing else 0.0,
        "difference_high": standing.high if standing else 0.0,
        "p": standing.p if standing else 1.0,
        "verdict": standing.verdict if standing else "",
    }


def score_texts(row: Mapping[str, Any]) -> list[str]:
    """What stands under `SCORE_HEADINGS` for a row that holds `score_values`."""
    interval = format_interval(row["val_auc_low"], row["val_auc_high"])
    return [format_value(row["val_auc"]), interval, format_value(row["sd_over_seeds"])]


def standing_texts(row: Mapping[str, Any]) -> list[str]:
    """What stands under `STANDING_HEADINGS` for a row that holds `standing_values`."""
    interval = format_interval(row["difference_low"], row["difference_high"])
    return [format_value(row["difference"]), interval, format_p(float(row["p"])), str(row["verdict"])]
