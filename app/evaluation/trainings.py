"""The spread between several trainings of the same models, beside that between subjects.

Resampled subjects tell how the difference between *these* networks would vary with other subjects. Another
seed gives other networks: where there are several, the variance of their mean is added to that of the
subjects, as in an analysis of subjects crossed with trainings. It is on the safe side: part of the first
is seen again in the second, above all where each seed has its own test subjects.

Source: crossed effects: Owen 2007, doi:10.1214/07-AOAS122; degrees of freedom: Satterthwaite 1946,
    doi:10.2307/3002019.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from voxlift.app.evaluation.scores import Floats


@dataclass(frozen=True)
class Spread:
    """Variance of a mean over trainings, and the degrees of freedom of its estimate."""

    variance: float
    freedom: float

    def reach(self, level: float) -> float:
        """Half the width of the interval of that level, by Student's t (the normal law without end)."""
        return math.sqrt(self.variance) * float(stats.t.ppf((1 + level) / 2, self.freedom))

    def p_value(self, difference: float) -> float:
        """Two-sided p-value of a difference from 0."""
        return float(2 * stats.t.sf(abs(difference) / math.sqrt(self.variance), self.freedom))


def add_trainings(subject_variance: float, by_training: Sequence[float]) -> Spread:
    """The variance of a mean over trainings from that over subjects and the values of each training.

    A single training shows no spread, so that the variance stays that of the subjects.

    >>> add_trainings(0.01, [0.1, 0.3])
    Spread(variance=0.02, freedom=4.0)
    """
    known = [value for value in by_training if math.isfinite(value)]
    if len(known) < 2:
        return Spread(subject_variance, math.inf)
    between = float(np.var(known, ddof=1)) / len(known)
    if between <= 1e-18:
        return Spread(subject_variance, math.inf)
    total = subject_variance + between
    return Spread(round(total, 15), round((len(known) - 1) * (total / between) ** 2, 9))


def widen_draws(draws: Floats, centre: float, by_training: Sequence[float], *, level: float) -> Floats:
    """Bootstrap draws [B] of a mean over trainings, pulled away from `centre` as the trainings' spread asks.

    The shape of the draws stays; without spread between trainings they are returned as they are. Where the
    subjects show no spread at all, the draws become quantiles of the normal law.
    """
    known = draws[np.isfinite(draws)]
    if len(known) < 2 or not math.isfinite(centre):
        return draws
    own = float(known.var())
    spread = add_trainings(own, by_training)
    if math.isinf(spread.freedom):
        return draws
    z = float(stats.norm.ppf((1 + level) / 2))
    wanted = spread.reach(level) / z
    if own <= 1e-18:
        even = stats.norm.ppf((np.arange(len(draws)) + 0.5) / len(draws))
        return np.asarray(centre + wanted * even, dtype=np.float64)
    widened: Floats = centre + (draws - centre) * (wanted / math.sqrt(own))
    return widened
