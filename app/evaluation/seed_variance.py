"""Variance between training seeds, added to the variance over subjects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxlift.app.evaluation.scores import Floats


@dataclass(frozen=True)
class MeanVariance:
    """Variance of a mean over training seeds, and the degrees of freedom of its estimate."""

    variance: float
    degrees_of_freedom: float

    def half_width(self, level: float) -> float:
        """Return half the width of the interval of that level, by Student's t."""
        from scipy import stats  # slow; only where something is evaluated

        return math.sqrt(self.variance) * float(stats.t.ppf((1 + level) / 2, self.degrees_of_freedom))

    def p_value(self, difference: float) -> float:
        """Return the two-sided p-value of a difference from 0."""
        from scipy import stats  # slow; only where something is evaluated

        return float(2 * stats.t.sf(abs(difference) / math.sqrt(self.variance), self.degrees_of_freedom))


def add_seed_variance(subject_variance: float, by_seed: Sequence[float]) -> MeanVariance:
    """Return the variance of a mean over seeds: that over subjects plus that of the values of each seed.

    A single seed shows no variance, so that the variance over subjects remains. The degrees of freedom are
    those of Welch and Satterthwaite, with the variance over subjects taken as known.

    >>> add_seed_variance(0.01, [0.1, 0.3])
    MeanVariance(variance=0.02, degrees_of_freedom=4.0)
    """
    finite = [value for value in by_seed if math.isfinite(value)]
    if len(finite) < 2:
        return MeanVariance(subject_variance, math.inf)
    between = float(np.var(finite, ddof=1)) / len(finite)
    if between <= 1e-18:
        return MeanVariance(subject_variance, math.inf)
    total = subject_variance + between
    return MeanVariance(round(total, 15), round((len(finite) - 1) * (total / between) ** 2, 9))


def widen_draws(draws: Floats, centre: float, by_seed: Sequence[float], *, level: float) -> Floats:
    """Return bootstrap draws [B] of a mean over seeds, widened by the variance between seeds.

    They are stretched about `centre`, so that the shape of their distribution stays. Without variance between
    seeds they are returned unchanged; without variance over subjects they become quantiles of the normal
    distribution.

    Args:
        draws: The metric, or difference, in each resample of subjects [B].
        centre: Its value on the subjects themselves.
        by_seed: Its value for each training seed.
        level: Coverage of the interval that will be read from the draws.
    """
    finite = draws[np.isfinite(draws)]
    if len(finite) < 2 or not math.isfinite(centre):
        return draws
    own = float(finite.var())
    total = add_seed_variance(own, by_seed)
    if math.isinf(total.degrees_of_freedom):
        return draws
    from scipy import stats  # as above

    deviation = total.half_width(level) / float(stats.norm.ppf((1 + level) / 2))
    if own <= 1e-18:
        quantiles = stats.norm.ppf((np.arange(len(draws)) + 0.5) / len(draws))
        return np.asarray(centre + deviation * quantiles, dtype=np.float64)
    widened: Floats = centre + (draws - centre) * (deviation / math.sqrt(own))
    return widened
