"""Are the probabilities what they say? Temperature scaling, fitted on validation, and reliability bins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import ndtri

from voxlift.app.evaluation.intervals import bootstrap_intervals, defined
from voxlift.app.evaluation.metrics import CALIBRATION_BINS, bin_index, calibration_pairs, score_metrics
from voxlift.app.evaluation.scores import Floats, Integers, Scores

SMALLEST = 1e-12  # a float32 softmax can say exactly 0, whose logarithm no temperature moves
TEMPERATURES = (0.05, 20.0)
CALIBRATION_METRICS = ("log_loss", "brier", "ece")


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature: above 1 the model was too sure, below 1 not sure enough.

    Attributes:
        value: Logits are divided by it; 1 where `at_bound`, since none could be fitted.
        loss_before: Mean log loss on validation as predicted.
        loss_after: The same after scaling.
        at_bound: The best temperature lies outside the range searched (0.05 to 20): validation is separated
            without error, or the scores say nothing.
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
    """The temperature with the least log loss on validation scores; the ranking and the AUC stay the same.

    Source: Guo, Pleiss, Sun and Weinberger 2017, arXiv:1706.04599.
    """
    logits = np.log(np.maximum(validation.probabilities, SMALLEST))
    unscaled = _mean_log_loss(logits, validation.labels)

    def loss(log_temperature: float) -> float:
        return _mean_log_loss(logits / np.exp(log_temperature), validation.labels)

    bounds = tuple(np.log(TEMPERATURES))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    is_near = bool(min(abs(best.x - bounds[0]), abs(best.x - bounds[1])) < 1e-3)
    # Where every volume's own class leads, any sharpening looks better, until rounding ends the search.
    if is_near or _is_separated(logits, validation.labels):
        return Temperature(1.0, unscaled, unscaled, at_bound=True)
    return Temperature(float(np.exp(best.x)), unscaled, float(best.fun), at_bound=False)


def apply_temperature(scores: Scores, temperature: float) -> Scores:
    """The scores with softened (above 1) or sharpened (below 1) probabilities.

    A threshold on class 1 is carried along, so that every decision stays what it was.
    """
    scaled = replace(scores, probabilities=_scale(scores.probabilities, temperature))
    if not scores.is_binary or scores.threshold == 0.5:
        return scaled
    pair = np.array([[1 - scores.threshold, scores.threshold]])
    return replace(scaled, threshold=float(_scale(pair, temperature)[0, 1]))


def describe_calibration(validation: Scores, judged: Mapping[str, Scores]) -> dict[str, object]:
    """The block `calibration` of metrics.json: the temperature, and each split before and after scaling.

    Args:
        validation: What the temperature is fitted on.
        judged: Split to scores; each gets `before` and `after` with log loss, Brier score and calibration
            error, and their bootstrap intervals.
    """
    fitted = fit_temperature(validation)
    return {
        "temperature": fitted.value,
        "fitted_on": "val",
        "at_bound": fitted.at_bound,
        **{
            split: {
                "before": _calibration_block(scores),
                "after": _calibration_block(apply_temperature(scores, fitted.value)),
            }
            for split, scores in judged.items()
        },
    }


def _calibration_block(scores: Scores) -> dict[str, object]:
    values, bounds = score_metrics(scores), bootstrap_intervals(scores)
    plain: dict[str, object] = {name: defined(values[name]) for name in CALIBRATION_METRICS}
    return plain | {"intervals": {name: [*map(defined, bounds[name])] for name in CALIBRATION_METRICS}}


def reliability_bins(scores: Scores, *, bins: int = CALIBRATION_BINS) -> Reliability:
    """Predicted against observed frequency in equal bins: of class 1, or of the decided class of several.

    Source of the interval: Wilson 1927, doi:10.1080/01621459.1927.10502953.
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
    """Wilson's score interval of a share; both ends within 0..1."""
    z = float(ndtri((1 + level) / 2))
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    reach = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return np.maximum(centre - reach, 0.0), np.minimum(centre + reach, 1.0)


def _scale(probabilities: Floats, temperature: float) -> Floats:
    logits = np.log(np.maximum(probabilities, SMALLEST)) / temperature
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: Floats = raised / raised.sum(axis=1, keepdims=True)
    return scaled


def _is_separated(logits: Floats, labels: Integers) -> bool:
    """Whether every volume's own class has the largest logit, and no other one as large."""
    own = np.arange(logits.shape[1]) == labels[:, None]
    return bool((logits[own] > np.where(own, -np.inf, logits).max(axis=1)).all())


def _mean_log_loss(logits: Floats, labels: Integers) -> float:
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float((total - logits[np.arange(len(labels)), labels]).mean())
