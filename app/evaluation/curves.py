"""ROC and precision-recall curves with bootstrap bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxlift.app.evaluation.bootstrap import draw_weights
from voxlift.app.evaluation.metrics import Ranking, cumulative_rates, rank_scores
from voxlift.app.evaluation.scores import Flags, Floats, Scores, ScoresError

BAND_RESAMPLES = 500
MACRO_POINTS = 201


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve through its exact points (x, y), and a pointwise 95 % band (low, high) on a grid."""

    x: Floats
    y: Floats
    grid: Floats
    low: Floats
    high: Floats


def roc_curve(scores: Scores, *, klass: int = 1, resamples: int = BAND_RESAMPLES, seed: int = 0) -> Curve:
    """Return sensitivity over false positive rate of one class, with a band from resampled subjects.

    Args:
        scores: Labels and probabilities.
        klass: Index of the class, against all others.
        resamples: Number of resamples.
        seed: Seed of the draws.

    Raises:
        ScoresError: The class, or every other class, has no volume.
    """
    ranking, is_positive = _rank_class(scores, klass)
    grid = np.linspace(0, 1, 101)
    sensitivity, false_positive_rate, _ = cumulative_rates(ranking, is_positive, np.ones((1, len(scores))))
    bands = []
    for (weights,) in draw_weights([scores], resamples=resamples, seed=seed):
        y, x, _ = cumulative_rates(ranking, is_positive, weights)
        bands.append([np.interp(grid, np.r_[0, f], np.r_[0, h]) for f, h in zip(x, y, strict=True)])
    return Curve(np.r_[0, false_positive_rate[0]], np.r_[0, sensitivity[0]], grid, *_band(bands))


def macro_roc_curve(
    scores: Scores, *, classes: Sequence[int], resamples: int = BAND_RESAMPLES, seed: int = 0
) -> Curve:
    """Return the mean over classes of their ROC curves against the rest, at each false positive rate.

    The area below it is the mean of the classes' areas. Classes count alike, however rare they are.

    Args:
        scores: Labels and probabilities.
        classes: Indices of the classes, each with volumes of it and of others.
        resamples: Number of resamples.
        seed: Seed of the draws.
    """
    ranked = [_rank_class(scores, klass) for klass in classes]
    grid = np.linspace(0, 1, MACRO_POINTS)

    def mean_curves(weights: Floats) -> Floats:
        curves = []
        for ranking, is_positive in ranked:
            y, x, _ = cumulative_rates(ranking, is_positive, weights)
            curves.append([np.interp(grid, np.r_[0, f], np.r_[0, h]) for f, h in zip(x, y, strict=True)])
        return np.asarray(np.mean(curves, axis=0))

    drawn = draw_weights([scores], resamples=resamples, seed=seed)
    bands = [list(mean_curves(weights)) for (weights,) in drawn]
    return Curve(grid, mean_curves(np.ones((1, len(scores))))[0], grid, *_band(bands))


def precision_recall_curve(
    scores: Scores, *, klass: int = 1, resamples: int = BAND_RESAMPLES, seed: int = 0
) -> Curve:
    """Return precision over recall of one class, with a band from resampled subjects; as `roc_curve`."""
    ranking, is_positive = _rank_class(scores, klass)
    grid = np.linspace(0.01, 1, 100)
    recall, _, precision = cumulative_rates(ranking, is_positive, np.ones((1, len(scores))))
    bands = []
    for (weights,) in draw_weights([scores], resamples=resamples, seed=seed):
        x, _, y = cumulative_rates(ranking, is_positive, weights)
        # Precision at the first tie group that reaches the recall: linear interpolation would be optimistic.
        reached = [np.searchsorted(own, grid - 1e-12) for own in x]
        bands.append([p[np.minimum(r, len(p) - 1)] for p, r in zip(y, reached, strict=True)])
    return Curve(np.r_[0, recall[0]], np.r_[precision[0, :1], precision[0]], grid, *_band(bands))


def _rank_class(scores: Scores, klass: int) -> tuple[Ranking, Flags]:
    is_positive = np.asarray(scores.labels == klass)
    if is_positive.all() or not is_positive.any():
        raise ScoresError(f"A curve needs volumes of class {scores.classes[klass]} and of another class.")
    return rank_scores(scores.probabilities[:, klass]), is_positive


def _band(draws: list[list[Floats]]) -> tuple[Floats, Floats]:
    low, high = np.quantile(np.concatenate(draws), [0.025, 0.975], axis=0)
    return low, high
