"""The difference of two correlated AUCs by DeLong's method, for clustered volumes, folds and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxlift.app.evaluation.bootstrap import add_trainings
from voxlift.app.evaluation.intervals import Cells
from voxlift.app.evaluation.pairing import align_cells, subject_codes
from voxlift.app.evaluation.scores import Floats, Integers, Scores, ScoresError


@dataclass(frozen=True)
class DeLong:
    """Difference of AUC, second model minus first, with its normal interval and two-sided p-value."""

    auc_first: float
    auc_second: float
    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float
    subjects: int


def delong_difference(
    first: Scores | Sequence[Scores],
    second: Scores | Sequence[Scores],
    *,
    trainings: Sequence[int] | None = None,
    level: float = 0.95,
) -> DeLong:
    """Test whether two models rank the same volumes equally well; two classes only.

    What it assumes: subjects are independent, and there are enough of both classes for a normal difference
    (some tens). Volumes of one subject may depend on each other: their components are summed per subject
    before the variance is taken (Obuchowski 1997), which for one volume per subject is DeLong's variance
    exactly. Over several cells (folds, seeds) the AUC is the mean over cells, and a subject's components are
    averaged over the cells that it is in. Where `trainings` tells several seeds apart, the spread between
    their differences is added (`add_trainings`), with Student's t in place of the normal law; else the
    networks are taken as given.

    Args:
        first: Scores of the first model, or one per fold and seed.
        second: The second model's, on the same volumes.
        trainings: The seed of each cell; None: all cells are one training.
        level: Coverage of the interval.

    Raises:
        ScoresError: Not two classes, a cell without one of them, fewer than two subjects of a class, or not
            the same volumes.

    Source: DeLong, DeLong and Clarke-Pearson 1988, doi:10.2307/2531595; algorithm: Sun and Xu 2014,
        doi:10.1109/LSP.2014.2337313; clusters: Obuchowski 1997, doi:10.2307/2533958.
    """
    left, right = align_cells(first, second)
    parts = [subject_components(cells) for cells in (left, right)]
    aucs = [part.auc for part in parts]
    difference = aucs[1] - aucs[0]
    positive, negative = (
        parts[1].positive - parts[0].positive,
        parts[1].negative - parts[0].negative,
    )
    variance = _variance(positive, negative, part=parts[0])
    spread = add_trainings(variance, _by_training(left, right, trainings))
    reach = spread.reach(level)
    if spread.variance < 1e-24:  # no subject ranked differently: no evidence either way
        p_value = 1.0 if abs(difference) < 1e-12 else 0.0
    else:
        p_value = spread.p_value(difference)
    return DeLong(
        aucs[0],
        aucs[1],
        difference,
        math.sqrt(spread.variance),
        difference - reach,
        difference + reach,
        p_value,
        len(parts[0].positive),
    )


def _by_training(left: Cells, right: Cells, trainings: Sequence[int] | None) -> list[float]:
    """The difference of the AUCs, averaged over the folds of each seed."""
    if trainings is None:
        return []
    found = []
    for seed in sorted(set(trainings)):
        own = [row for row, other in enumerate(trainings) if other == seed]
        aucs = [subject_components([cells[row] for row in own]).auc for cells in (left, right)]
        found.append(aucs[1] - aucs[0])
    return found


@dataclass(frozen=True, eq=False)
class Components:
    """An AUC and each subject's share [S] in its deviation, from positive and from negative volumes."""

    auc: float
    positive: Floats
    negative: Floats
    positive_subjects: int
    negative_subjects: int


def subject_components(cells: Cells) -> Components:
    """The AUC averaged over cells, and the centred structural components summed per subject."""
    count, codes = subject_codes(cells)
    positive, negative = np.zeros(count), np.zeros(count)
    has_positive, has_negative = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    aucs = []
    for cell, code in zip(cells, codes, strict=True):
        is_positive = _check(cell)
        above, below = structural_components(cell.probabilities[:, 1], is_positive)
        auc = float(above.mean())
        aucs.append(auc)
        for share, kind, rows, has in (
            (positive, above, is_positive, has_positive),
            (negative, below, ~is_positive, has_negative),
        ):
            np.add.at(share, code[rows], (kind - auc) / (len(kind) * len(cells)))
            has[code[rows]] = True
    return Components(
        float(np.mean(aucs)), positive, negative, int(has_positive.sum()), int(has_negative.sum())
    )


def structural_components(values: Floats, positive: np.ndarray) -> tuple[Floats, Floats]:
    """Share of negatives below each positive, and of positives above each negative, in O(N log N)."""
    above, below = values[positive], values[~positive]
    overall = _midranks(np.concatenate((above, below)))
    share_below = (overall[: len(above)] - _midranks(above)) / len(below)
    share_above = 1 - (overall[len(above) :] - _midranks(below)) / len(above)
    return share_below, share_above


def _midranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = np.cumsum(counts) - (counts - 1) / 2
    return ranks[inverse]


def _variance(positive: Floats, negative: Floats, *, part: Components) -> float:
    subjects, with_positive, with_negative = len(positive), part.positive_subjects, part.negative_subjects
    if min(with_positive, with_negative) < 2:
        raise ScoresError(
            f"DeLong's variance needs two subjects of each class, got {with_positive} positive and "
            f"{with_negative} negative"
        )
    variance = (
        with_positive / (with_positive - 1) * float(positive @ positive)
        + with_negative / (with_negative - 1) * float(negative @ negative)
        + 2 * subjects / (subjects - 1) * float(positive @ negative)
    )
    return max(variance, 0.0)


def _check(cell: Scores) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if not cell.is_binary:
        raise ScoresError(
            f"DeLong's test compares two classes, got {len(cell.classes)}: use the paired bootstrap"
        )
    labels: Integers = cell.labels
    absent = [name for k, name in enumerate(cell.classes) if not (labels == k).any()]
    if absent:
        raise ScoresError(f"no volume of class {absent[0]} in one set of scores: its AUC is undefined")
    return np.asarray(labels == 1)
