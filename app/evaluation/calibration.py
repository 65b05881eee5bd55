"""Calibration: temperature scaling, fitted on validation, and reliability bins."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri, softmax

from voxlift.app.evaluation.metrics import CALIBRATION_BINS, bin_index, calibration_pairs
from voxlift.app.evaluation.scores import Floats, Integers, Scores

SMALLEST = 1e-12  # a float32 softmax can return exactly 0, whose logarithm no temperature changes
TEMPERATURES = (0.05, 20.0)
SHIFT = 0.1  # between mean probability and share of a class, above which the prevalence is shifted


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature: above 1 the model was overconfident, below 1 underconfident.

    Attributes:
        value: Divisor of the logits; 1 where `at_bound`, since none could be fitted.
        loss_before: Mean log loss on validation as predicted.
        loss_after: The same after scaling.
        at_bound: Whether the best temperature lies outside the range searched (0.05 to 20), as for a
            perfectly separated validation, or for uninformative scores.
    """

    value: float
    loss_before: float
    loss_after: float
    at_bound: bool


@dataclass(frozen=True, eq=False)
class Reliability:
    """Bins of predicted probability, empty ones left out.

    Attributes:
        predicted: Mean prediction per bin.
        observed: Share of volumes with the predicted outcome per bin.
        low: Lower end of Wilson's 95 % interval of `observed`.
        high: Upper end.
        counts: Volumes per bin.
    """

    predicted: Floats
    observed: Floats
    low: Floats
    high: Floats
    counts: Integers


def fit_temperature(validation: Scores) -> Temperature:
    """Return the temperature with the least log loss on validation scores; the ranking and AUC stay the same.

    Source: Guo, Pleiss, Sun and Weinberger 2017, arXiv:1706.04599.
    """
    logits = np.log(np.maximum(validation.probabilities, SMALLEST))
    unscaled = _mean_log_loss(logits, validation.labels)

    def loss(log_temperature: float) -> float:
        return _mean_log_loss(logits / np.exp(log_temperature), validation.labels)

    bounds = tuple(np.log(TEMPERATURES))
    from scipy.optimize import minimize_scalar  # slow; only where something is fitted

    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    is_at_bound = bool(min(abs(best.x - bounds[0]), abs(best.x - bounds[1])) < 1e-3)
    # In a separated validation any sharpening lowers the loss, until rounding ends the search.
    if is_at_bound or _is_separated(logits, validation.labels):
        return Temperature(1.0, unscaled, unscaled, at_bound=True)
    return Temperature(float(np.exp(best.x)), unscaled, float(best.fun), at_bound=False)


def _is_separated(logits: Floats, labels: Integers) -> bool:
    """Return whether every volume's own class has the largest logit, with no ties."""
    own = np.arange(logits.shape[1]) == labels[:, None]
    return bool((logits[own] > np.where(own, -np.inf, logits).max(axis=1)).all())


def explain_no_temperature(validation: Scores) -> str:
    """Return why no temperature could be fitted, as a clause.

    A temperature leaves the sign of every logit: where a class is far more or less frequent in validation
    than a model predicts, no temperature helps, but a shift of the logits does.
    """
    if _is_separated(np.log(np.maximum(validation.probabilities, SMALLEST)), validation.labels):
        return "validation is perfectly separated"
    observed = np.bincount(validation.labels, minlength=len(validation.classes)) / len(validation.labels)
    predicted = validation.probabilities.mean(axis=0)
    worst = int(np.abs(observed - predicted).argmax())
    if abs(observed[worst] - predicted[worst]) > SHIFT:
        return (
            f"the prevalence is shifted: the mean probability of {validation.classes[worst]} is "
            f"{predicted[worst]:.2f}, but its share of validation is {observed[worst]:.2f}, which a bias "
            "(a shift of the logits) corrects, but no temperature; evaluation.recalibrate of "
            "voxlift-evaluate fits both, slope and bias, on a table of other subjects"
        )
    return "the scores do not separate the classes better at any temperature"


def _mean_log_loss(logits: Floats, labels: Integers) -> float:
    # Not scipy's logsumexp: it differs in the last bit, and with it the temperature in metrics.json.
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float((total - logits[np.arange(len(labels)), labels]).mean())


def apply_temperature(scores: Scores, temperature: float) -> Scores:
    """Return the scores with softened (above 1) or sharpened (below 1) probabilities.

    A threshold on class 1 is transformed too, so that every decision stays what it was.
    """
    scaled = replace(scores, probabilities=_scale(scores.probabilities, temperature))
    if not scores.is_binary or scores.threshold == 0.5:
        return scaled
    pair = np.array([[1 - scores.threshold, scores.threshold]])
    return replace(scaled, threshold=float(_scale(pair, temperature)[0, 1]))


def _scale(probabilities: Floats, temperature: float) -> Floats:
    logits = np.log(np.maximum(probabilities, SMALLEST)) / temperature
    return np.asarray(softmax(logits, axis=1))


def reliability_bins(scores: Scores, *, bins: int = CALIBRATION_BINS) -> Reliability:
    """Return predicted and observed frequency in equal bins: of class 1, or of the predicted class.

    Source: interval by Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    predicted, observed = calibration_pairs(scores)
    index = bin_index(predicted, bins)
    counts = np.bincount(index, minlength=bins)
    kept = counts > 0
    n = counts[kept].astype(np.float64)
    share = np.bincount(index, observed, bins)[kept] / n
    low, high = wilson_interval(share * n, n)
    return Reliability(np.bincount(index, predicted, bins)[kept] / n, share, low, high, counts[kept])


def wilson_interval(successes: Floats, trials: Floats, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Return Wilson's score interval of a proportion; both ends within 0..1."""
    z = float(ndtri((1 + level) / 2))
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half_width = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return np.maximum(centre - half_width, 0.0), np.minimum(centre + half_width, 1.0)
