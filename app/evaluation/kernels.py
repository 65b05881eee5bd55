"""Metrics of many resamples at once: weights [B, N] in, one value per resample [B] out.

A resample is a row of non-negative weights (how often each volume was drawn), so that a point estimate is a
row of ones and the bootstrap is a matrix product: the interval always belongs to the very metric it stands
beside.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxlift.app.evaluation.scores import Floats, Integers

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Order of N scores from the highest to the lowest, and where each group of ties starts in it."""

    order: Integers
    starts: Integers


def rank_scores(values: Floats) -> Ranking:
    """The ranking of scores [N]; equal scores form one group."""
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return Ranking(order, starts)


def weighted_roc_auc(ranking: Ranking, positive: Flags, weights: Floats) -> Floats:
    """Probability that a positive outranks a negative, ties counting half [B]; nan without both classes."""
    hits, misses = _per_group(ranking, positive, weights)
    positives, negatives = hits.sum(axis=1), misses.sum(axis=1)
    below = negatives[:, None] - np.cumsum(misses, axis=1) + misses / 2
    return divide((hits * below).sum(axis=1), positives * negatives)


def weighted_average_precision(ranking: Ranking, positive: Flags, weights: Floats) -> Floats:
    """Mean precision over the steps of recall, without interpolation [B]; nan without positives."""
    hits, misses = _per_group(ranking, positive, weights)
    found = np.cumsum(hits, axis=1)
    shown = found + np.cumsum(misses, axis=1)
    precision = divide(found, shown, undefined=0.0)
    return divide((hits * precision).sum(axis=1), hits.sum(axis=1))


def cumulative_rates(ranking: Ranking, positive: Flags, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """True and false positive rate and precision [B, groups] as the threshold falls from tie to tie."""
    hits, misses = _per_group(ranking, positive, weights)
    found, false = np.cumsum(hits, axis=1), np.cumsum(misses, axis=1)
    precision = divide(found, found + false, undefined=1.0)
    return divide(found, found[:, -1:]), divide(false, false[:, -1:]), precision


def weighted_confusion(labels: Integers, decisions: Integers, kinds: int, weights: Floats) -> Floats:
    """Confusion matrices [B, K, K], rows the true class, columns the decided one."""
    cells = np.zeros((len(labels), kinds * kinds))
    cells[np.arange(len(labels)), labels * kinds + decisions] = 1
    return (weights @ cells).reshape(-1, kinds, kinds)


def confusion_rates(confusion: Floats) -> dict[str, Floats]:
    """Rates of each class against the rest [B, K]; nan where the denominator is empty."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    missed = confusion.sum(axis=2) - hits
    false = confusion.sum(axis=1) - hits
    passed = confusion.sum(axis=(1, 2))[:, None] - hits - missed - false
    return {
        "sensitivity": divide(hits, hits + missed),
        "specificity": divide(passed, passed + false),
        "ppv": divide(hits, hits + false),
        "npv": divide(passed, passed + missed),
        "f1": divide(2 * hits, 2 * hits + missed + false),
    }


def matthews(confusion: Floats) -> Floats:
    """Matthews correlation for K classes [B], -1..1; 0 where all volumes share one true or one decided class.

    Source: Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006.
    """
    true, decided = confusion.sum(axis=2), confusion.sum(axis=1)
    total = true.sum(axis=1)
    correct = np.trace(confusion, axis1=1, axis2=2)
    covariance = correct * total - (true * decided).sum(axis=1)
    spread = (total**2 - (true**2).sum(axis=1)) * (total**2 - (decided**2).sum(axis=1))
    return divide(covariance, np.sqrt(spread), undefined=0.0)


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Mean of values [N] under each resample [B]; nan for one that drew nobody."""
    return divide(weights @ values, weights.sum(axis=1))


def weighted_gap(predicted: Floats, observed: Floats, bins: int, weights: Floats) -> Floats:
    """Expected calibration error [B]: the size-weighted mean of |observed - predicted| over equal bins.

    Nan for a resample that drew nobody, as happens in a fold of few subjects.

    Source: Naeini, Cooper and Hauskrecht 2015, doi:10.1609/aaai.v29i1.9602.
    """
    member = np.zeros((len(predicted), bins))
    member[np.arange(len(predicted)), bin_index(predicted, bins)] = observed - predicted
    return divide(np.abs(weights @ member).sum(axis=1), weights.sum(axis=1))


def bin_index(values: Floats, bins: int) -> Integers:
    """Index 0..bins-1 of the equal bin of [0, 1] that each value lies in; a bin holds its lower edge."""
    index: Integers = np.clip((values * bins).astype(np.int64), 0, bins - 1)
    return index


def divide(above: Floats, below: Floats, *, undefined: float = np.nan) -> Floats:
    """Quotient with a chosen value where the denominator is 0."""
    shape = np.broadcast_shapes(above.shape, below.shape)
    quotient = np.full(shape, undefined)
    np.divide(above, below, out=quotient, where=np.broadcast_to(below != 0, shape))
    return quotient


def nan_mean(values: Floats) -> Floats:
    """Mean over the last axis of what is defined; nan where nothing is."""
    defined = np.isfinite(values)
    return divide(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def per_class(
    kernel: Callable[[Ranking, Flags, Floats], Floats], scores: Floats, labels: Integers, weights: Floats
) -> Floats:
    """A ranking metric of each class against the rest [B, K]."""
    columns = range(scores.shape[1])
    return np.stack([kernel(rank_scores(scores[:, k]), labels == k, weights) for k in columns], axis=1)


def _per_group(ranking: Ranking, positive: Flags, weights: Floats) -> tuple[Floats, Floats]:
    """Weight of positives and of negatives in each group of ties [B, groups], from the highest score down."""
    ordered = weights[:, ranking.order]
    flags = positive[ranking.order]
    hits, misses = ordered * flags, ordered * ~flags
    if len(ranking.starts) == len(ranking.order):
        return hits, misses
    return np.add.reduceat(hits, ranking.starts, axis=1), np.add.reduceat(misses, ranking.starts, axis=1)
