"""Calibration: a temperature and a bias, fitted on validation, and reliability bins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import chdtri, ndtri, softmax

from voxlift.app.evaluation.metrics import CALIBRATION_BINS, bin_index, calibration_pairs
from voxlift.app.evaluation.scores import Floats, Integers, Scores

SMALLEST = 1e-12  # a float32 softmax can return exactly 0, whose logarithm no temperature changes
TEMPERATURES = (0.05, 20.0)
BIAS_LEVEL = 0.01  # of the test whether a bias is needed besides a temperature
SHIFT = 0.1  # between mean probability and share of a class, above which a bias is fitted, too


@dataclass(frozen=True)
class Calibration:
    """How logits become those of calibrated probabilities.

    Attributes:
        temperature: Divides the logits: above 1 the model was overconfident, below 1 underconfident.
        bias: [K], added afterwards, its mean 0; empty: none, as where a temperature is enough.
    """

    temperature: float = 1.0
    bias: tuple[float, ...] = ()

    @classmethod
    def from_json(cls, block: Mapping[str, Any]) -> Calibration:
        """Return what the block `calibration` of metrics.json holds."""
        return cls(float(block["temperature"]), tuple(map(float, block.get("bias", ()))))

    @property
    def is_neutral(self) -> bool:
        """Whether it changes nothing."""
        return self.temperature == 1 and not self.bias

    def as_json(self) -> dict[str, Any]:
        """Return the temperature, and the bias where there is one."""
        return {"temperature": self.temperature} | ({"bias": list(self.bias)} if self.bias else {})

    def scale(self, logits: Floats) -> Floats:
        """Return the calibrated logits [N, K]."""
        scaled = logits / self.temperature
        return scaled + np.array(self.bias) if self.bias else scaled

    def describe(self, classes: Sequence[str]) -> str:
        """Return the values as text, the bias by class."""
        text = f"{self.temperature:.3f}"
        if not self.bias:
            return text
        biases = (f"{value:+.2f} {name}" for value, name in zip(self.bias, classes, strict=True))
        return f"{text} with bias {', '.join(biases)}"


def list_calibrations(calibrations: Sequence[Calibration]) -> dict[str, Any]:
    """Return the values of several runs as JSON: `temperature`, and `bias` where one has any."""
    biases = [list(one.bias) for one in calibrations]
    temperatures = [one.temperature for one in calibrations]
    return {"temperature": temperatures} | ({"bias": biases} if any(biases) else {})


@dataclass(frozen=True)
class FittedCalibration:
    """A calibration with what it was fitted for.

    Attributes:
        value: The calibration; neutral where `at_bound`, since none could be fitted.
        loss_before: Mean log loss on validation as predicted.
        loss_after: The same after scaling.
        at_bound: Whether the best temperature lies outside the range searched (0.05 to 20), as for a
            perfectly separated validation, or for uninformative scores.
    """

    value: Calibration
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


def fit_calibration(validation: Scores) -> FittedCalibration:
    """Return the temperature with the least log loss on validation scores; the ranking and AUC stay the same.

    A temperature leaves the sign of every logit. Where a class is far more or less frequent in validation
    than predicted, a bias is fitted with it: the ranking of two classes stays, too.

    Source:
        Guo, Pleiss, Sun and Weinberger 2017, arXiv:1706.04599; with a bias Alexandari, Kundaje and Shrikumar
        2020, arXiv:1901.06852.
    """
    logits = _to_logits(validation.probabilities)
    unscaled = _mean_log_loss(logits, validation.labels)
    # In a separated validation any sharpening lowers the loss, until rounding ends the search.
    if not _is_separated(logits, validation.labels):
        value = _fit_temperature(logits, validation.labels)
        if _find_shift(validation) > SHIFT:
            value = _add_bias(value, logits, validation.labels)
        if value is not None:
            scaled = _mean_log_loss(value.scale(logits), validation.labels)
            return FittedCalibration(value, unscaled, scaled, at_bound=False)
    return FittedCalibration(Calibration(), unscaled, unscaled, at_bound=True)


def _fit_temperature(logits: Floats, labels: Integers) -> Calibration | None:
    """Return the best temperature; None where it lies outside the range."""
    from scipy.optimize import minimize_scalar  # slow; only where something is fitted

    def loss(log_temperature: float) -> float:
        return _mean_log_loss(logits / np.exp(log_temperature), labels)

    bounds = tuple(np.log(TEMPERATURES))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    is_at_bound = bool(min(abs(best.x - bounds[0]), abs(best.x - bounds[1])) < 1e-3)
    return None if is_at_bound else Calibration(float(np.exp(best.x)))


def _add_bias(value: Calibration | None, logits: Floats, labels: Integers) -> Calibration | None:
    """Return temperature and bias where a likelihood ratio test prefers them, else the temperature."""
    biased = _fit_with_bias(logits, labels)
    if biased is None:
        return value
    losses = [_mean_log_loss(one.scale(logits), labels) for one in (value or Calibration(), biased)]
    ratio = 2 * len(labels) * (losses[0] - losses[1])
    return biased if ratio > chdtri(logits.shape[1] - 1, BIAS_LEVEL) else value


def _fit_with_bias(logits: Floats, labels: Integers) -> Calibration | None:
    """Return the best temperature and bias; None where the temperature lies outside the range.

    The loss is convex in the inverse of the temperature and the bias.
    """
    from scipy.optimize import minimize

    own = np.arange(logits.shape[1]) == labels[:, None]

    def loss(values: Floats) -> tuple[float, Floats]:
        scaled = values[0] * logits + values[1:]
        error = (softmax(scaled, axis=1) - own) / len(labels)
        gradient = np.concatenate([[(error * logits).sum()], error.sum(axis=0)])
        return _mean_log_loss(scaled, labels), gradient

    slopes = (1 / TEMPERATURES[1], 1 / TEMPERATURES[0])
    start = np.concatenate([[1.0], np.zeros(logits.shape[1])])
    free = [(None, None)] * logits.shape[1]
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[slopes, *free])
    slope, bias = float(best.x[0]), best.x[1:] - best.x[1:].mean()
    if min(slope - slopes[0], slopes[1] - slope) < 1e-3 * slopes[0]:
        return None
    return Calibration(1 / slope, tuple(map(float, bias)))


def _is_separated(logits: Floats, labels: Integers) -> bool:
    """Return whether every volume's own class has the largest logit, with no ties."""
    own = np.arange(logits.shape[1]) == labels[:, None]
    return bool((logits[own] > np.where(own, -np.inf, logits).max(axis=1)).all())


def _find_shift(validation: Scores) -> float:
    """Return the largest difference of a class's share of validation from its mean probability."""
    observed = np.bincount(validation.labels, minlength=len(validation.classes)) / len(validation.labels)
    return float(np.abs(observed - validation.probabilities.mean(axis=0)).max())


def explain_no_calibration(validation: Scores) -> str:
    """Return why neither temperature nor bias could be fitted, as a clause."""
    if _is_separated(_to_logits(validation.probabilities), validation.labels):
        return "validation is perfectly separated"
    return "the scores do not separate the classes better at any temperature"


def _mean_log_loss(logits: Floats, labels: Integers) -> float:
    # Not scipy's logsumexp: it differs in the last bit, and with it the temperature in metrics.json.
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float((total - logits[np.arange(len(labels)), labels]).mean())


def apply_calibration(scores: Scores, calibration: Calibration) -> Scores:
    """Return the scores with calibrated probabilities.

    A threshold on class 1 is transformed too, so that every decision on two classes stays what it was.
    """
    scaled = replace(scores, probabilities=_scale(scores.probabilities, calibration))
    if not scores.is_binary or (scores.threshold == 0.5 and not calibration.bias):
        return scaled
    pair = np.array([[1 - scores.threshold, scores.threshold]])
    return replace(scaled, threshold=float(_scale(pair, calibration)[0, 1]))


def _scale(probabilities: Floats, calibration: Calibration) -> Floats:
    return np.asarray(softmax(calibration.scale(_to_logits(probabilities)), axis=1))


def _to_logits(probabilities: Floats) -> Floats:
    return np.log(np.maximum(probabilities, SMALLEST))


def reliability_bins(scores: Scores, *, bins: int = CALIBRATION_BINS) -> Reliability:
    """Return predicted and observed frequency in equal bins: of class 1, or of the predicted class.

    Source:
        interval by Wilson 1927, doi:10.1080/01621459.1927.10502953.
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
