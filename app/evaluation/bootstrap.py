"""Metrics of one model and differences of two, with intervals, by resampling subjects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from voxlift.app.evaluation.intervals import (
    RESAMPLES,
    Cells,
    mean_of_cells,
    percentile_interval,
    resample_models,
)
from voxlift.app.evaluation.metrics import metric_draws
from voxlift.app.evaluation.pairing import as_cells
from voxlift.app.evaluation.scores import Floats, Scores

UNBOUNDED = frozenset({"log_loss", "brier"})  # the Brier score of several classes reaches 2


@dataclass(frozen=True)
class Difference:
    """A metric of two models, and their difference (second minus first) with interval and p-value."""

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float


def point_metrics(scores: Scores | Sequence[Scores]) -> dict[str, float]:
    """Every metric of one model, averaged over its folds and seeds."""
    values = mean_of_cells([metric_draws(cell, np.ones((1, len(cell)))) for cell in as_cells(scores)])
    return {name: float(value[0]) for name, value in values.items()}


def metrics_by_training(cells: Cells, trainings: Sequence[int] | None) -> list[dict[str, float]]:
    """Every metric of each training: the means over its folds, trainings in the order of their seeds."""
    seeds = trainings if trainings is not None else [0] * len(cells)
    groups = sorted(set(seeds))
    return [
        point_metrics([cell for cell, own in zip(cells, seeds, strict=True) if own == group])
        for group in groups
    ]


def model_intervals(
    models: Mapping[str, Scores | Sequence[Scores]],
    *,
    trainings: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, tuple[float, float]]]:
    """Intervals of every metric per model, over folds and seeds: name -> metric -> (low, high).

    Arguments are those of `compare_models`; intervals end where the metric does (0 or -1, and 1).
    """
    cells = {name: as_cells(scores) for name, scores in models.items()}
    draws = resample_models(list(cells.values()), resamples=resamples, seed=seed)
    return {
        name: _intervals(cells[name], drawn, trainings=trainings, level=level)
        for name, drawn in zip(cells, draws, strict=True)
    }


def paired_differences(
    pair: Sequence[Cells],
    draws: Sequence[Mapping[str, Floats]],
    *,
    trainings: Sequence[int] | None,
    level: float,
) -> dict[str, Difference]:
    """Difference of every metric, second minus first, by resampling subjects once for both models.

    Folds and seeds: a metric is the mean over cells (pooling the out-of-fold scores of differently calibrated
    models would bias an AUC), and a subject drawn is drawn in all cells alike. Where `trainings` tells the
    cells of several seeds apart, the spread between their differences widens the draws (`widen_draws`). The
    p-value is twice the smaller share of resamples on either side of 0, with one added to both counts, so
    never below 2 / (resamples + 1).

    Args:
        pair: Cells of the first model and of the second, on the same volumes.
        draws: Of each, metric to its value in every resample [B]; see `resample_models`.
        trainings: The seed of each cell; None: all cells are one training.
        level: Coverage of the intervals.

    Source: Efron and Tibshirani 1993, ISBN 978-0412042317; averaging folds: Forman and Scholz 2010,
        doi:10.1145/1882471.1882479.
    """
    points = [point_metrics(cells) for cells in pair]
    by_training = [metrics_by_training(cells, trainings) for cells in pair]
    found = {}
    for metric in points[0]:
        if metric not in points[1]:
            continue  # `accuracy@0.5` exists only where a threshold was chosen
        first, second = points[0][metric], points[1][metric]
        each = [after[metric] - before[metric] for before, after in zip(*by_training, strict=True)]
        spread = widen_draws(draws[1][metric] - draws[0][metric], second - first, each, level=level)
        reach = np.inf if metric in UNBOUNDED else 2.0 if metric == "mcc" else 1.0
        low, high = percentile_interval(np.clip(spread, -reach, reach), level)
        found[metric] = Difference(metric, first, second, second - first, low, high, _two_sided(spread))
    return found


def _intervals(
    cells: Cells, draws: Mapping[str, Floats], *, trainings: Sequence[int] | None, level: float
) -> dict[str, tuple[float, float]]:
    point, by_training = point_metrics(cells), metrics_by_training(cells, trainings)
    found = {}
    for metric, values in draws.items():
        widened = widen_draws(values, point[metric], [each[metric] for each in by_training], level=level)
        least = -1.0 if metric == "mcc" else 0.0
        most = np.inf if metric in UNBOUNDED else 1.0
        low, high = percentile_interval(np.clip(widened, least, most), level)
        found[metric] = (low, high)
    return found


def _two_sided(spread: Floats) -> float:
    known = spread[np.isfinite(spread)]
    if not len(known):
        return float("nan")
    below, above = int((known <= 1e-12).sum()), int((known >= -1e-12).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(known) + 1))


@dataclass(frozen=True)
class Spread:
    """Variance of a mean over trainings, and the degrees of freedom of its estimate."""

    variance: float
    freedom: float

    def reach(self, level: float) -> float:
        """Half the width of the interval of that level, by Student's t (the normal law without end)."""
        return math.sqrt(self.variance) * float(stats.t.ppf((1 + level) / 2, self.freedom))

    def p_value(self, difference: float) -> float:
        """Two-sided p-value of a difference from 0."""
        return float(2 * stats.t.sf(abs(difference) / math.sqrt(self.variance), self.freedom))


def add_trainings(subject_variance: float, by_training: Sequence[float]) -> Spread:
    """The variance of a mean over trainings from that over subjects and the values of each training.

    A single training shows no spread, so that the variance stays that of the subjects.

    >>> add_trainings(0.01, [0.1, 0.3])
    Spread(variance=0.02, freedom=4.0)
    """
    known = [value for value in by_training if math.isfinite(value)]
    if len(known) < 2:
        return Spread(subject_variance, math.inf)
    between = float(np.var(known, ddof=1)) / len(known)
    if between <= 1e-18:
        return Spread(subject_variance, math.inf)
    total = subject_variance + between
    return Spread(round(total, 15), round((len(known) - 1) * (total / between) ** 2, 9))


def widen_draws(draws: Floats, centre: float, by_training: Sequence[float], *, level: float) -> Floats:
    """Bootstrap draws [B] of a mean over trainings, pulled away from `centre` as the trainings' spread asks.

    The shape of the draws stays; without spread between trainings they are returned as they are. Where the
    subjects show no spread at all, the draws become quantiles of the normal law.
    """
    known = draws[np.isfinite(draws)]
    if len(known) < 2 or not math.isfinite(centre):
        return draws
    own = float(known.var())
    spread = add_trainings(own, by_training)
    if math.isinf(spread.freedom):
        return draws
    z = float(stats.norm.ppf((1 + level) / 2))
    wanted = spread.reach(level) / z
    if own <= 1e-18:
        even = stats.norm.ppf((np.arange(len(draws)) + 0.5) / len(draws))
        return np.asarray(centre + wanted * even, dtype=np.float64)
    widened: Floats = centre + (draws - centre) * (wanted / math.sqrt(own))
    return widened
