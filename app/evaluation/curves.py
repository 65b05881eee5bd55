"""ROC and precision-recall curves with bootstrap bands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from voxlift.app.evaluation.intervals import draw_subjects, subject_strata
from voxlift.app.evaluation.metrics import (
    Ranking,
    confusion_rates,
    cumulative_rates,
    divide,
    matthews,
    rank_scores,
)
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


Criterion = Callable[[Floats, float], Floats]


def choose_threshold(validation: Scores, *, rule: str = "youden", at_least: float = 0.9) -> float:
    """The threshold on the probability of class 1 that serves a rule best on validation.

    Candidates lie halfway between neighbouring scores, so that a gap between the classes is cut in its
    middle; among equally good ones the one nearest 0.5 is taken.

    Args:
        validation: Scores of the validation split, two classes, both present.
        rule: "youden" (sensitivity + specificity - 1, the same as balanced accuracy), "accuracy", "f1",
            "mcc", "sensitivity" (at least `at_least`, then the highest specificity) or "specificity" (the
            converse).
        at_least: Rate that the last two rules hold.

    Returns:
        Threshold in 0..1; class 1 is decided at or above it.

    Raises:
        ScoresError: An unknown rule, not two classes, or a class without a volume.

    Source: Youden 1950, doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3.
    """
    _check(validation, rule)
    candidates = _candidates(validation.probabilities[:, 1])
    value = CRITERIA[rule](_confusions(validation, candidates), at_least)
    best = candidates[value >= value.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - 0.5))])


def _candidates(probability: Floats) -> Floats:
    distinct = np.unique(np.concatenate((probability, [0.0, 1.0])))
    return np.unique(np.concatenate(((distinct[1:] + distinct[:-1]) / 2, [0.0, 1.0])))


def _confusions(scores: Scores, candidates: Floats) -> Floats:
    """Confusion matrices [T, 2, 2] at each candidate threshold."""
    counts = []
    for label in (0, 1):
        ordered = np.sort(scores.probabilities[scores.labels == label, 1])
        below = np.searchsorted(ordered, candidates, side="left")
        counts.append(np.stack([below, len(ordered) - below], axis=1))
    return np.stack(counts, axis=1).astype(np.float64)


def _youden(confusion: Floats, _: float) -> Floats:
    rates = confusion_rates(confusion)
    return rates["sensitivity"][:, 1] + rates["specificity"][:, 1] - 1


def _accuracy(confusion: Floats, _: float) -> Floats:
    correct: Floats = np.trace(confusion, axis1=1, axis2=2)
    return divide(correct, confusion.sum(axis=(1, 2)))


def _f1(confusion: Floats, _: float) -> Floats:
    return confusion_rates(confusion)["f1"][:, 1]


def _mcc(confusion: Floats, _: float) -> Floats:
    return matthews(confusion)


def _held(hold: str, gain: str) -> Criterion:
    def criterion(confusion: Floats, at_least: float) -> Floats:
        rates = confusion_rates(confusion)
        held, gained = rates[hold][:, 1], rates[gain][:, 1]
        return np.where(held >= at_least, gained, held - 2)

    return criterion


CRITERIA = MappingProxyType(
    {
        "youden": _youden,
        "accuracy": _accuracy,
        "f1": _f1,
        "mcc": _mcc,
        "sensitivity": _held("sensitivity", "specificity"),
        "specificity": _held("specificity", "sensitivity"),
    }
)


def _check(validation: Scores, rule: str) -> None:
    if rule not in CRITERIA:
        raise ScoresError(f"unknown threshold rule {rule!r}: expected one of {', '.join(CRITERIA)}")
    if not validation.is_binary:
        raise ScoresError(f"a threshold decides between two classes, got {len(validation.classes)}")
    absent = [name for k, name in enumerate(validation.classes) if not (validation.labels == k).any()]
    if absent:
        raise ScoresError(
            f"no validation volume of class {absent[0]}: a threshold needs both classes; enlarge splits.val"
        )
