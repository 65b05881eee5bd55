"""ROC and precision-recall curves with bootstrap bands."""

from dataclasses import dataclass

import numpy as np

from voxlift.app.evaluation.intervals import draw_subjects, subject_strata
from voxlift.app.evaluation.kernels import Ranking, cumulative_rates, rank_scores
from voxlift.app.evaluation.scores import Floats, Scores, ScoresError

BAND_RESAMPLES = 500


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve through its exact points (x, y), and a pointwise 95 % band (low, high) on a grid."""

    x: Floats
    y: Floats
    grid: Floats
    low: Floats
    high: Floats


def roc_curve(scores: Scores, *, klass: int = 1, resamples: int = BAND_RESAMPLES, seed: int = 0) -> Curve:
    """False positive rate against sensitivity of one class, with a band from resampled subjects."""
    ranking, positive = _ranked(scores, klass)
    grid = np.linspace(0, 1, 101)
    hits, false, _ = cumulative_rates(ranking, positive, np.ones((1, len(scores))))
    bands = []
    for block in _weights(scores, resamples, seed):
        drawn_hits, drawn_false, _ = cumulative_rates(ranking, positive, block)
        pairs = zip(drawn_false, drawn_hits, strict=True)
        bands.append([np.interp(grid, np.r_[0, f], np.r_[0, h]) for f, h in pairs])
    low, high = _band(np.concatenate(bands))
    return Curve(np.r_[0, false[0]], np.r_[0, hits[0]], grid, low, high)


def precision_recall_curve(
    scores: Scores, *, klass: int = 1, resamples: int = BAND_RESAMPLES, seed: int = 0
) -> Curve:
    """Recall against precision of one class, with a band from resampled subjects."""
    ranking, positive = _ranked(scores, klass)
    grid = np.linspace(0.01, 1, 100)
    hits, _, precision = cumulative_rates(ranking, positive, np.ones((1, len(scores))))
    bands = []
    for block in _weights(scores, resamples, seed):
        drawn_hits, _, drawn = cumulative_rates(ranking, positive, block)
        # Precision at the first tie group that reaches the recall: linear interpolation would be too kind.
        reached = [np.searchsorted(h, grid - 1e-12) for h in drawn_hits]
        bands.append([p[np.minimum(r, len(p) - 1)] for p, r in zip(drawn, reached, strict=True)])
    low, high = _band(np.concatenate(bands))
    return Curve(np.r_[0, hits[0]], np.r_[precision[0, :1], precision[0]], grid, low, high)


def _ranked(scores: Scores, klass: int) -> tuple[Ranking, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    positive = np.asarray(scores.labels == klass)
    if positive.all() or not positive.any():
        raise ScoresError(f"a curve needs volumes of class {scores.classes[klass]} and of another class")
    return rank_scores(scores.probabilities[:, klass]), positive


def _weights(scores: Scores, resamples: int, seed: int) -> list[Floats]:
    names, strata = subject_strata([scores])
    position = {name: index for index, name in enumerate(names)}
    rows = [position[subject] for subject in scores.subjects]
    block = max(1, 2_000_000 // len(scores))
    return [drawn[:, rows] for drawn in draw_subjects(strata, resamples=resamples, seed=seed, block=block)]


def _band(draws: Floats) -> tuple[Floats, Floats]:
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return low, high
