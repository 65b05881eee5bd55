"""DeLong's test of the difference of two correlated AUCs, for clustered volumes, folds and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxlift.app.evaluation.scores import (
    ClassFits,
    Flags,
    Floats,
    Scores,
    ScoresError,
    align_fits,
    as_fits,
    index_subjects,
)
from voxlift.app.evaluation.seed_variance import MeanVariance, add_seed_variance


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


@dataclass(frozen=True, eq=False)
class Components:
    """An AUC, and each subject's contribution [S] to it, from positive and from negative volumes."""

    auc: float
    positive: Floats
    negative: Floats
    positive_subjects: int
    negative_subjects: int


def delong_difference(
    first: Scores | ClassFits,
    second: Scores | ClassFits,
    *,
    fit_seeds: Sequence[int] | None = None,
    level: float = 0.95,
) -> DeLong:
    """Test whether two models rank the same volumes equally well; two classes only.

    Assumptions: subjects are independent, and there are enough of both classes for a normal difference (some
    tens). Volumes of one subject may depend on each other: their components are summed per subject before
    the variance is taken (Obuchowski 1997), which for one volume per subject is DeLong's variance exactly.
    Over several fits (folds, seeds) the AUC is the mean over fits, and a subject's components are averaged
    over the fits that it is in. Where `fit_seeds` holds several seeds, the variance between their differences
    is added (`add_seed_variance`), with Student's t in place of the normal distribution; else the networks
    are taken as given.

    Args:
        first: Scores of the first model, or one per fold and seed.
        second: The second model's, on the same volumes.
        fit_seeds: The training seed of each fit; None: all fits are of one seed.
        level: Coverage of the interval.

    Raises:
        ScoresError: Not two classes, a fit without one of them, fewer than two subjects of a class, or not
            the same volumes.

    Source:
        DeLong, DeLong and Clarke-Pearson 1988, doi:10.2307/2531595; algorithm: Sun and Xu 2014,
        doi:10.1109/LSP.2014.2337313; clusters: Obuchowski 1997, doi:10.2307/2533958.
    """
    left, right = align_fits(first, second)
    one, other = subject_components(left), subject_components(right)
    difference = other.auc - one.auc
    variance = auc_variance(other.positive - one.positive, other.negative - one.negative, counts=one)
    total = add_seed_variance(variance, differences_by_seed(left, right, fit_seeds))
    if total.variance < 1e-24:  # no subject ranked differently: no evidence either way
        p_value = 1.0 if abs(difference) < 1e-12 else 0.0
    else:
        p_value = total.p_value(difference)
    return _summarise((one.auc, other.auc), total, level, p_value=p_value, subjects=len(one.positive))


def _summarise(
    aucs: tuple[float, float], variance: MeanVariance, level: float, *, p_value: float, subjects: int
) -> DeLong:
    """Return two AUCs with the normal interval of their difference."""
    difference, half_width = aucs[1] - aucs[0], variance.half_width(level)
    return DeLong(
        auc_first=aucs[0],
        auc_second=aucs[1],
        difference=difference,
        standard_error=math.sqrt(variance.variance),
        low=difference - half_width,
        high=difference + half_width,
        p_value=p_value,
        subjects=subjects,
    )


def delong_interval(scores: Scores | ClassFits, *, level: float = 0.95) -> tuple[float, float]:
    """Return the normal interval of one model's AUC by DeLong's variance, clipped to 0..1.

    Assumptions and errors as in `delong_difference`.
    """
    found = subject_components(as_fits(scores))
    variance = auc_variance(found.positive, found.negative, counts=found)
    half_width = add_seed_variance(variance, ()).half_width(level)
    return max(0.0, found.auc - half_width), min(1.0, found.auc + half_width)


def delong_unpaired(first: Scores | ClassFits, second: Scores | ClassFits, *, level: float = 0.95) -> DeLong:
    """Test whether one model, or two, rank different subjects equally well; two classes only.

    The two sets of subjects are independent, so the variances of the two AUCs add up. Within a set, volumes
    of one subject may depend on each other, and fits are averaged, as in `delong_difference`.

    Raises:
        ScoresError: As in `delong_difference`; a subject may not be in both sets.
    """
    sides = [subject_components(as_fits(scores)) for scores in (first, second)]
    variance = sum(auc_variance(one.positive, one.negative, counts=one) for one in sides)
    one, other = sides
    total = add_seed_variance(variance, ())
    p_value = total.p_value(other.auc - one.auc) if variance > 0 else float("nan")
    subjects = len(one.positive) + len(other.positive)
    return _summarise((one.auc, other.auc), total, level, p_value=p_value, subjects=subjects)


def subject_components(fits: ClassFits) -> Components:
    """Return the AUC averaged over fits, and the centred structural components summed per subject."""
    subjects, indices = index_subjects(fits)
    sums = np.zeros((2, len(subjects)))  # from negative volumes, from positive volumes
    occurs = np.zeros((2, len(subjects)), dtype=bool)
    aucs = []
    for fit, index in zip(fits, indices, strict=True):
        _refuse_unless_two_classes(fit)
        is_positive = np.asarray(fit.labels == 1)
        of_positives, of_negatives = structural_components(fit.probabilities[:, 1], is_positive)
        auc = float(of_positives.mean())
        aucs.append(auc)
        for label, components, rows in ((1, of_positives, is_positive), (0, of_negatives, ~is_positive)):
            np.add.at(sums[label], index[rows], (components - auc) / (len(components) * len(fits)))
            occurs[label, index[rows]] = True
    return Components(float(np.mean(aucs)), sums[1], sums[0], int(occurs[1].sum()), int(occurs[0].sum()))


def structural_components(values: Floats, is_positive: Flags) -> tuple[Floats, Floats]:
    """Return the share of negatives below each positive, and of positives above each negative."""
    positives, negatives = values[is_positive], values[~is_positive]
    from scipy.stats import rankdata  # slow; only where something is evaluated

    ranks = rankdata(np.concatenate((positives, negatives)))
    share_below = (ranks[: len(positives)] - rankdata(positives)) / len(negatives)
    share_above = 1 - (ranks[len(positives) :] - rankdata(negatives)) / len(positives)
    return share_below, share_above


def auc_variance(positive: Floats, negative: Floats, *, counts: Components) -> float:
    """Return the variance of an AUC, or of a difference of two, from each subject's contributions [S].

    Args:
        positive: Contributions from positive volumes.
        negative: Contributions from negative volumes.
        counts: Whose numbers of subjects of each class are used.

    Raises:
        ScoresError: Fewer than two subjects of a class.
    """
    subjects = len(positive)
    with_positive, with_negative = counts.positive_subjects, counts.negative_subjects
    if min(with_positive, with_negative) < 2:
        raise ScoresError(
            f"DeLong's variance needs two subjects of each class, received {with_positive} positive and "
            f"{with_negative} negative."
        )
    variance = (
        with_positive / (with_positive - 1) * float(positive @ positive)
        + with_negative / (with_negative - 1) * float(negative @ negative)
        + 2 * subjects / (subjects - 1) * float(positive @ negative)
    )
    return max(variance, 0.0)


def differences_by_seed(left: ClassFits, right: ClassFits, fit_seeds: Sequence[int] | None) -> list[float]:
    """Return the difference of the AUCs for each seed, averaged over its folds.

    Args:
        left: Fits of the first model.
        right: Of the second, on the same volumes.
        fit_seeds: The training seed of each fit; None: nothing is returned.
    """
    differences = []
    for seed in sorted(set(fit_seeds or ())):
        rows = [row for row, other in enumerate(fit_seeds or ()) if other == seed]
        first, second = (subject_components([fits[row] for row in rows]).auc for fits in (left, right))
        differences.append(second - first)
    return differences


def _refuse_unless_two_classes(fit: Scores) -> None:
    if not fit.is_binary:
        raise ScoresError(
            f"DeLong's test compares two classes, received {len(fit.classes)}: use the paired bootstrap."
        )
    absent = [name for k, name in enumerate(fit.classes) if not (fit.labels == k).any()]
    if absent:
        raise ScoresError(f"No volume of class {absent[0]} in one set of scores: its AUC is undefined.")
