"""Predicted numbers: errors, correlations, calibration, and agreement with what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from voxlift.app.evaluation.metrics import divide, metric_draws, rank_scores, weighted_mean
from voxlift.app.evaluation.scores import Floats, Predictions, ScoresError, index_subjects
from voxlift.data_pipelines.errors import list_some

AGREEMENT = 1.96  # standard deviations of the error on either side of its mean
CONSTANT = 1e-12  # a variance below this share of the mean square is rounding


@dataclass(frozen=True, eq=False)
class Numbers(Predictions):
    """Measured and predicted numbers of N volumes, in the target's own unit, immutable.

    Attributes:
        subjects: N subject names.
        labels: [N] float64, what was measured.
        values: [N] float64, what is predicted.
        items: As in `Scores`.
        name: Of the target, for texts.
        unit: Of both, for texts; empty where it is not known.
        training_mean: Mean of the target over the training subjects, a prediction without any image; nan
            where it is not known.
        training_median: The same with the median.
    """

    subjects: tuple[str, ...]
    labels: Floats
    values: Floats
    items: tuple[str, ...] = ()
    name: str = ""
    unit: str = ""
    training_mean: float = math.nan
    training_median: float = math.nan
    predicted: ClassVar[str] = "values"
    primary: ClassVar[str] = "mae"
    headline: ClassVar[tuple[str, ...]] = ("mae", "rmse", "r2", "pearson", "spearman")

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # the only way to normalise the values of a frozen dataclass
        set_field(self, "subjects", tuple(str(subject) for subject in self.subjects))
        set_field(self, "items", tuple(str(item) for item in self.items))
        for name in ("labels", "values"):
            set_field(self, name, np.array(getattr(self, name), dtype=np.float64))
            getattr(self, name).setflags(write=False)
        _check_numbers(self)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The name of the target, where it is known."""
        return (self.name,) if self.name else ()

    @property
    def errors(self) -> Floats:
        """[N] predicted minus measured."""
        return self.values - self.labels


@dataclass(frozen=True)
class Wilcoxon:
    """Wilcoxon's signed-rank test on the absolute errors of two models, second minus first.

    Attributes:
        median_difference: Median over subjects of the difference of absolute errors.
        statistic: The smaller sum of signed ranks.
        p_value: Two-sided.
        subjects: With a difference that is not 0.
    """

    median_difference: float
    statistic: float
    p_value: float
    subjects: int


@metric_draws.register
def number_metric_draws(numbers: Numbers, weights: Floats) -> dict[str, Floats]:
    """Return `metric_draws` of numbers, in the target's unit where they have one.

    `calibration_slope` and `calibration_intercept` are those of the line of measured on predicted (1 and 0
    are perfect). `error_slope` is that of the error on the measured value: below 0, high values are predicted
    too low and low ones too high. `mae_gain` is how much lower the mean absolute error is than that of
    always predicting the training median.

    Source:
        limits of agreement by Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8.
    """
    errors = _Moments(numbers.errors, numbers.labels, weights)
    both = _Moments(numbers.values, numbers.labels, weights)
    mean_square = weighted_mean(numbers.errors**2, weights)
    mae = weighted_mean(np.abs(numbers.errors), weights)
    slope = divide(both.covariance, both.first_variance)
    drawn = weights.sum(axis=1)
    spread = np.sqrt(errors.first_variance * divide(drawn, drawn - 1))  # of a sample, as Bland and Altman's
    draws = {
        "mae": mae,
        "rmse": np.sqrt(mean_square),
        "r2": 1 - divide(mean_square, both.second_variance),
        "pearson": both.correlation,
        "spearman": weighted_spearman(numbers.values, numbers.labels, weights),
        "calibration_slope": slope,
        "calibration_intercept": both.second_mean - slope * both.first_mean,
        "error_slope": divide(errors.covariance, errors.second_variance),
        "mean_error": errors.first_mean,
        "error_sd": spread,
        "agreement_low": errors.first_mean - AGREEMENT * spread,
        "agreement_high": errors.first_mean + AGREEMENT * spread,
    }
    return draws | _baseline_draws(numbers, weights, mae)


def weighted_spearman(first: Floats, second: Floats, weights: Floats) -> Floats:
    """Return Spearman's correlation [B] of two arrays [N] under each resample; nan where one is constant.

    Args:
        first: One array.
        second: The other.
        weights: How often each row is drawn [B, N].
    """
    return _Moments(_weighted_ranks(first, weights), _weighted_ranks(second, weights), weights).correlation


def wilcoxon_test(first: Sequence[Numbers], second: Sequence[Numbers]) -> Wilcoxon:
    """Test whether the absolute errors of two models differ, one value per subject.

    The absolute errors of a subject are averaged over its volumes, folds and seeds. Subjects without a
    difference are left out; without any other the p-value is 1.

    Args:
        first: The first model, one entry per fold and seed.
        second: The second, with its rows in the order of the first's.

    Source:
        Wilcoxon 1945, doi:10.2307/3001968; `scipy.stats.wilcoxon`.
    """
    from scipy import stats

    differences = subject_errors(second) - subject_errors(first)
    differs = differences[np.abs(differences) > 1e-12]
    median = float(np.median(differences))
    if not len(differs):
        return Wilcoxon(median, 0.0, 1.0, 0)
    found = stats.wilcoxon(differs)
    return Wilcoxon(median, float(found.statistic), float(found.pvalue), len(differs))


def subject_errors(fits: Sequence[Numbers]) -> Floats:
    """Return each subject's mean absolute error [S], sorted by name, over volumes, folds and seeds."""
    names, indices = index_subjects(fits)
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for fit, index in zip(fits, indices, strict=True):
        np.add.at(sums, index, np.abs(fit.errors))
        np.add.at(counts, index, 1)
    return sums / counts


class _Moments:
    """Population moments of two arrays, [N] or [B, N], under weights [B, N]; each is [B]."""

    def __init__(self, first: Floats, second: Floats, weights: Floats) -> None:
        # Centred first, so that the difference of squares below loses no digits.
        origins = first.mean(), second.mean()
        one, other = first - origins[0], second - origins[1]
        mean, other_mean = weighted_mean(one, weights), weighted_mean(other, weights)
        self.first_mean, self.second_mean = mean + origins[0], other_mean + origins[1]
        self.first_variance = _variance(weighted_mean(one**2, weights), mean)
        self.second_variance = _variance(weighted_mean(other**2, weights), other_mean)
        self.covariance = weighted_mean(one * other, weights) - mean * other_mean

    @property
    def correlation(self) -> Floats:
        """Pearson's correlation; nan where an array is constant."""
        ratio = divide(self.covariance, np.sqrt(self.first_variance * self.second_variance))
        return np.clip(ratio, -1.0, 1.0)


def _variance(mean_square: Floats, mean: Floats) -> Floats:
    variance = mean_square - mean**2
    return np.where(variance > CONSTANT * mean_square, variance, 0.0)


def _weighted_ranks(values: Floats, weights: Floats) -> Floats:
    """Return the rank [B, N] of each value among those drawn, ties sharing their mean rank."""
    ranking = rank_scores(values)
    of_group = np.add.reduceat(weights[:, ranking.order], ranking.starts, axis=1)
    ranks = np.cumsum(of_group, axis=1) - (of_group - 1) / 2
    sizes = np.diff(np.append(ranking.starts, len(values)))
    ordered = np.empty_like(weights)
    ordered[:, ranking.order] = np.repeat(ranks, sizes, axis=1)
    return ordered


def _baseline_draws(numbers: Numbers, weights: Floats, mae: Floats) -> dict[str, Floats]:
    """Return the errors of always predicting the training mean or median; nothing where they are unknown."""
    if not (math.isfinite(numbers.training_mean) and math.isfinite(numbers.training_median)):
        return {}
    of_mean, of_median = numbers.labels - numbers.training_mean, numbers.labels - numbers.training_median
    baseline = weighted_mean(np.abs(of_median), weights)
    return {
        "baseline_mae_median": baseline,
        "baseline_mae_mean": weighted_mean(np.abs(of_mean), weights),
        "baseline_rmse_mean": np.sqrt(weighted_mean(of_mean**2, weights)),
        "mae_gain": baseline - mae,
    }


def _check_numbers(numbers: Numbers) -> None:
    rows = len(numbers.subjects)
    found = (numbers.labels.shape, numbers.values.shape)
    if not rows or found != ((rows,), (rows,)) or (numbers.items and len(numbers.items) != rows):
        raise ScoresError(
            f"Expected a measured and a predicted number for each of {rows} volumes (one at least), received "
            f"{found[0]}, {found[1]} and {len(numbers.items)} items."
        )
    wrong = ~(np.isfinite(numbers.labels) & np.isfinite(numbers.values))
    if wrong.any():
        names = list_some([numbers.subjects[row] for row in np.flatnonzero(wrong)])
        raise ScoresError(f"Expected finite numbers; received others for subjects {names}.")
