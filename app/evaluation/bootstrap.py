"""Stratified bootstrap over subjects: every metric with its interval, for one model or several at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from voxlift.app.evaluation.metric_names import metric_range
from voxlift.app.evaluation.metrics import divide, metric_draws
from voxlift.app.evaluation.scores import (
    Fits,
    Floats,
    Integers,
    Predictions,
    Scores,
    as_fits,
    index_subjects,
    with_threshold,
)
from voxlift.app.evaluation.seed_variance import widen_draws

RESAMPLES = 2000
BLOCK_SIZE = 4_000_000  # weights held at once (32 MB), however many volumes there are
CURVE_BLOCK_SIZE = 2_000_000  # the same of `draw_weights` (16 MB)


def bootstrap_intervals(
    scores: Predictions,
    *,
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Return percentile intervals of every metric by a bootstrap over subjects, of classes within each class.

    All volumes of a subject are drawn together. Resamples in which a metric is undefined (for example because
    no volume is predicted positive) are left out of its quantiles; without any other it gets (nan, nan).

    Args:
        scores: Labels and predictions.
        threshold: As in `score_metrics`.
        resamples: Number of resamples.
        seed: Seed of the draws; the order of rows does not matter.
        level: Nominal coverage.

    Returns:
        Metric name to (low, high).

    Source:
        Efron and Tibshirani 1993, chapter 13, ISBN 978-0412042317.
    """
    chosen = scores
    if isinstance(scores, Scores) and threshold is not None:
        chosen = with_threshold(scores, threshold)
    (draws,) = resample_models([[chosen]], resamples=resamples, seed=seed)
    return {name: percentile_interval(values, level) for name, values in draws.items()}


def model_intervals(
    models: Mapping[str, Predictions | Fits],
    *,
    fit_seeds: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return intervals of every metric per model, over folds and seeds: name -> metric -> (low, high).

    The intervals are clipped to the range of the metric (`metric_range`). Arguments as in `compare_models`.
    """
    fits = {name: as_fits(scores) for name, scores in models.items()}
    draws = resample_models(list(fits.values()), resamples=resamples, seed=seed)
    return {
        name: _widened_intervals(fits[name], drawn, fit_seeds=fit_seeds, level=level)
        for name, drawn in zip(fits, draws, strict=True)
    }


def summarise_models(
    models: Mapping[str, Fits],
    *,
    fit_seeds: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, object]]:
    """Return every model's metrics over folds and seeds with their intervals, as blocks of a JSON file."""
    intervals = model_intervals(models, fit_seeds=fit_seeds, resamples=resamples, seed=seed)
    blocks = {}
    for name, fits in models.items():
        counts = {
            "n": len({key for fit in fits for key in fit.keys}),
            "subjects": len({subject for fit in fits for subject in fit.subjects}),
        }
        blocks[name] = metric_block(point_metrics(fits) | counts, intervals[name])
    return blocks


def metric_block(
    values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]
) -> dict[str, object]:
    """Return metrics, and under `intervals` name -> [low, high], with None for what JSON cannot hold."""
    finite: dict[str, object] = {name: finite_or_none(value) for name, value in values.items()}
    return finite | {"intervals": {name: [*map(finite_or_none, pair)] for name, pair in intervals.items()}}


def point_metrics(scores: Predictions | Fits) -> dict[str, float]:
    """Return every metric of one model, averaged over its folds and seeds."""
    values = mean_over_fits([metric_draws(fit, np.ones((1, len(fit)))) for fit in as_fits(scores)])
    return {name: float(value[0]) for name, value in values.items()}


def metrics_by_seed(fits: Fits, fit_seeds: Sequence[int] | None) -> list[dict[str, float]]:
    """Return every metric of each training seed, averaged over its folds, in the order of the seeds."""
    seeds = fit_seeds if fit_seeds is not None else [0] * len(fits)
    return [
        point_metrics([fit for fit, own in zip(fits, seeds, strict=True) if own == seed])
        for seed in sorted(set(seeds))
    ]


def resample_models(
    models: Sequence[Fits], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[dict[str, Floats], ...]:
    """Return every metric of every model under the same resamples of subjects, as name -> [resamples].

    A subject is drawn equally often in every model, fold and seed, so that differences between models are
    paired; a model's metric is the mean over the fits in which it is defined. Strata are those of
    `subject_strata`.

    Args:
        models: Fits of each model.
        resamples: Number of resamples.
        seed: Of the draws.
    """
    every_fit = [fit for fits in models for fit in fits]
    _, indices = index_subjects(every_fit)
    rows = iter(indices)
    pairs = [[(fit, next(rows)) for fit in fits] for fits in models]
    block = max(1, BLOCK_SIZE // max(len(fit) for fit in every_fit))
    draws: list[list[dict[str, Floats]]] = [[] for _ in models]
    for drawn in draw_subjects(subject_strata(every_fit), resamples=resamples, seed=seed, block=block):
        for blocks, own in zip(draws, pairs, strict=True):
            blocks.append(mean_over_fits([metric_draws(fit, drawn[:, index]) for fit, index in own]))
    return tuple({name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]} for blocks in draws)


def subject_strata(fits: Fits) -> Integers:
    """Return the stratum index of each subject, sorted by name: the same set of labels, the same stratum.

    Predictions of numbers, grades or findings are not stratified: all subjects are in one stratum.
    """
    labels: dict[str, set[int]] = {}
    for fit in fits:
        own = fit.labels if fit.is_stratified else np.zeros(len(fit))
        for subject, label in zip(fit.subjects, own, strict=True):
            labels.setdefault(subject, set()).add(int(label))
    sets = [tuple(sorted(labels[name])) for name in sorted(labels)]
    strata = sorted(set(sets))
    return np.array([strata.index(one) for one in sets], dtype=np.int64)


def draw_subjects(strata: Integers, *, resamples: int, seed: int, block: int) -> Iterator[Floats]:
    """Yield blocks [b, S] of how often each subject is drawn, with replacement, within its stratum.

    Args:
        strata: Stratum of each subject [S].
        resamples: Number of draws in all.
        seed: Of the draws.
        block: Draws that are yielded at once, b; with another number the draws are others.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = np.empty((size, len(strata)))
        for stratum in np.unique(strata):
            subjects = np.flatnonzero(strata == stratum)
            probability = np.full(len(subjects), 1 / len(subjects))
            drawn[:, subjects] = rng.multinomial(len(subjects), probability, size=size)
        yield drawn


def draw_weights(fits: Fits, *, resamples: int, seed: int) -> Iterator[list[Floats]]:
    """Yield blocks of weights [b, N] of the rows of each fit; a subject is drawn as often in all of them.

    Args:
        fits: One model's predictions, one per fold and seed; N rows each.
        resamples: Number of draws in all.
        seed: Of the draws.
    """
    _, rows = index_subjects(fits)
    block = max(1, CURVE_BLOCK_SIZE // max(map(len, fits)))
    for drawn in draw_subjects(subject_strata(fits), resamples=resamples, seed=seed, block=block):
        yield [drawn[:, own] for own in rows]


def two_sided_p(draws: Floats) -> float:
    """Return twice the smaller share of draws [B] on either side of 0, with one added to both counts."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return math.nan
    below, above = int((finite <= 1e-12).sum()), int((finite >= -1e-12).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(finite) + 1))


def percentile_interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the central interval of the finite draws; (nan, nan) where there is none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _widened_intervals(
    fits: Fits, draws: Mapping[str, Floats], *, fit_seeds: Sequence[int] | None, level: float
) -> dict[str, tuple[float, float]]:
    point, by_seed = point_metrics(fits), metrics_by_seed(fits, fit_seeds)
    intervals = {}
    for metric, values in draws.items():
        widened = widen_draws(values, point[metric], [one[metric] for one in by_seed], level=level)
        intervals[metric] = percentile_interval(np.clip(widened, *metric_range(metric)), level)
    return intervals


def mean_over_fits(draws: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    """Return the mean of each metric [B] over the fits in which it is finite; every fit must have it."""
    means = {}
    for name in draws[0]:
        if all(name in own for own in draws):
            stacked = np.stack([own[name] for own in draws])
            finite = np.isfinite(stacked)
            total = np.where(finite, stacked, 0.0).sum(axis=0)
            means[name] = divide(total, finite.sum(axis=0).astype(np.float64))
    return means


def finite_or_none(value: Any) -> Any:  # noqa: ANN401 - a number, or text that is kept
    """Return a value that JSON can hold: None for nan and the infinities."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
