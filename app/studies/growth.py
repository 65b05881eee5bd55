"""How a cost grows: a power law fitted on logarithmic axes, with the uncertainty of its exponent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class PowerLaw:
    """`cost = factor * size ** exponent`, fitted by least squares of the logarithms.

    Attributes:
        exponent: The slope on logarithmic axes.
        low: Lower end of the exponent's 95 % interval; nan where two points leave no degree of freedom.
        high: Upper end.
        factor: The cost at size 1.
    """

    exponent: float
    low: float
    high: float
    factor: float

    def at(self, size: float) -> float:
        """Return the fitted cost at a size."""
        return float(self.factor * size**self.exponent)


def fit_power_law(sizes: Sequence[float], costs: Sequence[float], *, level: float = 0.95) -> PowerLaw | None:
    """Return the power law through (size, cost), None where fewer than two sizes or a cost of 0 allow none.

    The interval is that of Student's t with n - 2 degrees of freedom: it holds where the points scatter
    around one law, and says nothing about sizes beyond those fitted.

    >>> law = fit_power_law([1, 2, 4], [3, 12, 48])
    >>> round(law.exponent, 6), round(law.factor, 6)
    (2.0, 3.0)
    """
    pairs = list(zip(sizes, costs, strict=True))
    if len({size for size, _ in pairs}) < 2 or any(not (size > 0 and cost > 0) for size, cost in pairs):
        return None
    x, y = (np.log(np.asarray(values, np.float64)) for values in (sizes, costs))
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    intercept = float(y.mean() - slope * x.mean())
    freedom = len(x) - 2
    reach = math.nan
    if freedom > 0:
        residual = y - intercept - slope * x
        error = math.sqrt(float(residual @ residual) / freedom / float(centred @ centred))
        reach = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    return PowerLaw(slope, slope - reach, slope + reach, math.exp(intercept))
