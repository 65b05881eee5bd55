"""Stratified bootstrap over subjects: intervals of every metric, for one model or several at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from voxlift.app.evaluation.metrics import divide, metric_draws, score_metrics
from voxlift.app.evaluation.scores import Floats, Integers, Scores, with_threshold

RESAMPLES = 2000
BLOCK_CELLS = 4_000_000  # weights held at once (32 MB), however many volumes there are

Cells = Sequence[Scores]
"""One model's scores on each fold and seed: the metric of a model is the mean over its cells."""


def bootstrap_intervals(
    scores: Scores,
    *,
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of every metric by a bootstrap over subjects, stratified by label.

    All volumes of a subject are drawn together. Metrics that are undefined in a resample (no volume decided
    positive, say) are left out of its quantiles; a metric that is defined in none gets (nan, nan).

    Args:
        scores: Labels and probabilities.
        threshold: As in `score_metrics`.
        resamples: Number of resamples.
        seed: Seed of the draws; the order of rows does not matter.
        level: Coverage aimed at.

    Returns:
        Metric name to (low, high).

    Source: Efron and Tibshirani 1993, chapter 13, ISBN 978-0412042317.
    """
    chosen = scores if threshold is None else with_threshold(scores, threshold)
    (draws,) = resample_models([[chosen]], resamples=resamples, seed=seed)
    return {name: percentile_interval(values, level) for name, values in draws.items()}


def evaluate_scores(
    scores: Scores,
    *,
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, object]:
    """The block of metrics.json for one split: every metric, and under `intervals` name -> [low, high].

    An undefined value is None (null in JSON). The counts n and subjects are integers.
    """
    values = score_metrics(scores, threshold=threshold)
    bounds = bootstrap_intervals(scores, threshold=threshold, resamples=resamples, seed=seed)
    plain: dict[str, object] = {name: defined(value) for name, value in values.items()}
    return plain | {
        "intervals": {name: [defined(low), defined(high)] for name, (low, high) in bounds.items()}
    }


def resample_models(
    models: Sequence[Cells], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[dict[str, Floats], ...]:
    """Every metric of every model under the same resamples of subjects, as name -> [resamples] per model.

    A subject is drawn as often in every model, fold and seed, so that differences between models are paired;
    a model's metric is the mean over its cells in which it is defined. Strata are the labels a subject's
    volumes carry.
    """
    names, strata = subject_strata([cell for cells in models for cell in cells])
    position = {name: index for index, name in enumerate(names)}
    rows = [[np.array([position[s] for s in cell.subjects]) for cell in cells] for cells in models]
    widest = max(len(cell) for cells in models for cell in cells)
    parts: list[list[dict[str, Floats]]] = [[] for _ in models]
    for drawn in draw_subjects(strata, resamples=resamples, seed=seed, block=max(1, BLOCK_CELLS // widest)):
        for part, cells, index in zip(parts, models, rows, strict=True):
            part.append(
                mean_of_cells([metric_draws(c, drawn[:, i]) for c, i in zip(cells, index, strict=True)])
            )
    return tuple({name: np.concatenate([p[name] for p in part]) for name in part[0]} for part in parts)


def mean_of_cells(cells: Sequence[dict[str, Floats]]) -> dict[str, Floats]:
    """Mean of each metric over cells, where defined; a metric must be known to every cell."""
    shared = [name for name in cells[0] if all(name in cell for cell in cells)]
    return {name: _nan_mean_over([cell[name] for cell in cells]) for name in shared}


def subject_strata(cells: Cells) -> tuple[tuple[str, ...], Integers]:
    """Sorted subject names and the stratum index of each: subjects with the same set of labels share one."""
    carried: dict[str, set[int]] = {}
    for cell in cells:
        for subject, label in zip(cell.subjects, cell.labels, strict=True):
            carried.setdefault(subject, set()).add(int(label))
    names = tuple(sorted(carried))
    kinds = sorted({tuple(sorted(carried[name])) for name in names})
    return names, np.array([kinds.index(tuple(sorted(carried[name]))) for name in names], dtype=np.int64)


def draw_subjects(strata: Integers, *, resamples: int, seed: int, block: int) -> Iterator[Floats]:
    """Blocks [b, S] of how often each subject is drawn, with replacement, within its stratum."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = np.empty((size, len(strata)))
        for stratum in np.unique(strata):
            members = np.flatnonzero(strata == stratum)
            chance = np.full(len(members), 1 / len(members))
            drawn[:, members] = rng.multinomial(len(members), chance, size=size)
        yield drawn


def percentile_interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Central interval of the defined draws; (nan, nan) where none is."""
    known = values[np.isfinite(values)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def defined(value: float) -> float | int | None:
    """The value, or None for one that JSON cannot hold."""
    return value if math.isfinite(value) else None


def _nan_mean_over(values: Sequence[Floats]) -> Floats:
    stacked = np.stack(values)
    known = np.isfinite(stacked)
    count = known.sum(axis=0)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    return divide(total, count.astype(np.float64))
