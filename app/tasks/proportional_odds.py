"""The proportional odds model of ordered classes with an L2 penalty: the linear model of `task=grades`.

scikit-learn has no ordinal regression. That of statsmodels has no penalty, without which no model of voxels
can be fitted, and no weights of grades.

Source:
    McCullagh (1980), Regression models for ordinal data, doi:10.1111/j.2517-6161.1980.tb01109.x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from voxlift.app.tasks.base import LinearOptions

SMALLEST_GAP = 2e-3  # between cuts, in logits: the layer CumulativeLogits holds any larger one
TOLERANCE = 1e-5  # of the gradient, where the weights of all volumes sum to 1

Floats = NDArray[np.float64]


def fit_proportional_odds(
    features: Floats, labels: NDArray[np.int64], fit: LinearOptions, *, grades: int
) -> tuple[Floats, Floats]:
    """Return coefficients [F, 1] and intercepts [K - 1] of the log odds of a grade above each cut.

    With two grades it is the logistic regression of scikit-learn with the same C.

    Args:
        features: [N, F].
        labels: Grades [N], 0 the lowest.
        fit: C, and whether all grades have the same weight.
        grades: K.
    """
    counts = np.bincount(labels, minlength=grades)
    weights = 1 / (grades * counts[labels]) if fit.balance else np.full(len(labels), 1 / len(labels))
    loss = PenalisedLoss(features, labels, weights, 1 / (fit.strength * len(labels)))
    share = np.cumsum(counts + 0.5)[:-1] / (counts + 0.5).sum()
    cuts = np.log(share / (1 - share))
    from scipy.optimize import minimize  # slow; only where something is fitted

    found = minimize(
        loss.value,
        np.concatenate([np.zeros(features.shape[1]), cuts[:1], np.log(np.diff(cuts))]),
        jac=loss.gradient,
        hessp=loss.hessian_product,
        method="trust-ncg",
        options={"gtol": TOLERANCE, "maxiter": fit.max_iterations},
    )
    return found.x[: features.shape[1], None], -loss.find_cuts(found.x)


def grade_probabilities(log_odds: Floats) -> Floats:
    """Return the probability [N, K] of each grade, from the log odds [N, K - 1] of one above each cut."""
    above = expit(log_odds)
    certain = np.ones((len(above), 1))
    return -np.diff(np.concatenate([certain, above, 0 * certain], axis=1), axis=1)


@dataclass(frozen=True, eq=False)
class PenalisedLoss:
    """The cross-entropy with the penalty, by coefficients [F], the first cut, and the logs of gaps [K - 2].

    The log odds over the lower cut `a` and under the upper cut `b` give the probability of a grade:
    s(a) - s(-b) = s(a) s(b) (1 - exp(-a - b)), without cancellation.

    Attributes:
        features: [N, F].
        labels: Grades [N].
        weights: [N], sum 1.
        penalty: Factor of half the squared coefficients.
    """

    features: Floats
    labels: NDArray[np.int64]
    weights: Floats
    penalty: float

    def find_cuts(self, parameters: Floats) -> Floats:
        """Return the rising cuts [K - 1]."""
        first, gaps = np.split(parameters[self.features.shape[1] :], [1])
        return np.cumsum(np.concatenate([first, SMALLEST_GAP + np.exp(gaps)]))

    def value(self, parameters: Floats) -> float:
        """Return the loss."""
        over, under = self._log_odds(parameters)
        log_p = log_expit(over) + log_expit(under) + np.log1p(-np.exp(-over - under))
        coefficients = parameters[: self.features.shape[1]]
        return float(-self.weights @ log_p + self.penalty / 2 * coefficients @ coefficients)

    def gradient(self, parameters: Floats) -> Floats:
        """Return the gradient, as `parameters`."""
        over, under = self._log_odds(parameters)
        of_value = self.weights * (expit(-under) - expit(-over))
        of_coefficients = self.features.T @ of_value + self.penalty * parameters[: self.features.shape[1]]
        return np.concatenate(
            [of_coefficients, self._of_cut_parameters(self._of_cuts(over, under), parameters)]
        )

    def hessian_product(self, parameters: Floats, direction: Floats) -> Floats:
        """Return the Hessian times a direction, as `parameters`."""
        count = self.features.shape[1]
        over, under = self._log_odds(parameters)
        gaps = np.exp(parameters[count + 1 :])
        cuts = np.cumsum(np.concatenate([direction[count : count + 1], gaps * direction[count + 1 :]]))
        lower, upper = self._around_labels(cuts, ends=(0.0, 0.0))
        value = self.features @ direction[:count]
        by_lower = self.weights * expit(over) * expit(-over) * (value - lower)
        by_upper = self.weights * expit(under) * expit(-under) * (value - upper)
        with np.errstate(over="ignore"):  # the lowest and the highest grade have no second cut
            by_gap = self.weights * (lower - upper) / (4 * np.sinh((over + under) / 2) ** 2)
        of_cuts = self._of_cut_parameters(
            self._sum_at_cuts(by_gap - by_lower, -by_gap - by_upper), parameters
        )
        bend = self._of_cut_parameters(self._of_cuts(over, under), parameters)[1:]  # a gap is an exponential
        of_cuts[1:] += bend * direction[count + 1 :]
        of_coefficients = self.features.T @ (by_lower + by_upper) + self.penalty * direction[:count]
        return np.concatenate([of_coefficients, of_cuts])

    def _log_odds(self, parameters: Floats) -> tuple[Floats, Floats]:
        """Return the log odds [N] of being over the lower cut of each label, and under its upper cut."""
        value = self.features @ parameters[: self.features.shape[1]]
        lower, upper = self._around_labels(self.find_cuts(parameters), ends=(-np.inf, np.inf))
        return value - lower, upper - value

    def _around_labels(self, cuts: Floats, *, ends: tuple[float, float]) -> tuple[Floats, Floats]:
        padded = np.concatenate([ends[:1], cuts, ends[1:]])
        return padded[self.labels], padded[self.labels + 1]

    def _of_cuts(self, over: Floats, under: Floats) -> Floats:
        """Return the gradient [K - 1] by the cuts."""
        with np.errstate(over="ignore"):
            by_gap = 1 / np.expm1(over + under)
        return self._sum_at_cuts(
            self.weights * (expit(-over) + by_gap), -self.weights * (expit(-under) + by_gap)
        )

    def _sum_at_cuts(self, lower: Floats, upper: Floats) -> Floats:
        """Return the sums [K - 1] of values [N] that belong to the cuts around each label."""
        size = int(self.labels.max()) + 2
        sums = np.bincount(self.labels, lower, size) + np.bincount(self.labels + 1, upper, size)
        return np.asarray(sums[1:-1], np.float64)

    def _of_cut_parameters(self, of_cuts: Floats, parameters: Floats) -> Floats:
        """Return a gradient by the cuts as one by the first cut and the logarithms of the gaps."""
        moved = np.cumsum(of_cuts[::-1])[::-1]  # a cut moves all later ones
        gaps = np.exp(parameters[self.features.shape[1] + 1 :])
        return np.concatenate([moved[:1], moved[1:] * gaps])
