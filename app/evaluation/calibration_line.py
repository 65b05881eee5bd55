"""Calibration line: the logistic regression of the outcome on the logit of the predicted probability."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, logit

from voxlift.app.evaluation.scores import Floats, Scores, ScoresError

CLIP = 1e-6  # a float32 softmax can return exactly 0 or 1, whose logit is infinite
MAX_STEPS = 50
LARGEST_STEP = 5.0
LARGEST_EFFECT = 20.0  # per standard deviation of the logit; beyond it the classes are separated
TOLERANCE = 1e-9


@dataclass(frozen=True)
class CalibrationLine:
    """The line: logit of the observed probability = `intercept` + `slope` * logit of the predicted one."""

    intercept: float
    slope: float


def fit_line(scores: Scores) -> CalibrationLine:
    """Return the calibration line of two-class scores; perfect calibration has intercept 0 and slope 1.

    A slope below 1 means probabilities that are too extreme. It is the logistic recalibration of these
    subjects, see `apply_line`.

    Raises:
        ScoresError: Not two classes, one of them is absent, or the scores separate them.

    Source:
        Cox 1958, doi:10.1093/biomet/45.3-4.562.
    """
    draws = line_draws(scores, np.ones((1, len(scores))))
    line = CalibrationLine(float(draws["line_intercept"][0]), float(draws["calibration_slope"][0]))
    if not np.isfinite([line.intercept, line.slope]).all():
        raise ScoresError("A calibration line needs both classes, and scores that do not separate them.")
    return line


def apply_line(scores: Scores, line: CalibrationLine) -> Scores:
    """Return the scores with recalibrated probabilities; a threshold on class 1 is transformed with them.

    Decisions stay what they were, where the slope is above 0.
    """
    positive = _transform(scores.probabilities[:, 1], line)
    threshold = float(_transform(np.array([scores.threshold]), line)[0])
    return replace(scores, probabilities=np.stack([1 - positive, positive], axis=1), threshold=threshold)


def line_draws(scores: Scores, weights: Floats) -> dict[str, Floats]:
    """Return what calibration is made of, under each row of volume weights [B, N], as name -> [B].

    `calibration_slope` and `line_intercept` are those of the calibration line; `calibration_intercept` is the
    calibration in the large, the intercept where the slope is held at 1; `mean_predicted` and `prevalence`
    are the mean probability and the share of class 1. A value is nan where it is undefined: one class only,
    or, for the slope, separated classes.

    Source:
        Van Calster et al. 2019, doi:10.1186/s12916-019-1466-7.
    """
    x, y = _logits(scores.probabilities[:, 1]), (scores.labels == 1).astype(np.float64)
    total = weights.sum(axis=1)
    prevalence = np.divide(weights @ y, total, out=np.full(len(total), np.nan), where=total > 0)
    mean = weights @ scores.probabilities[:, 1]
    intercept, slope = _fit(x, y, weights)
    return {
        "prevalence": prevalence,
        "mean_predicted": np.divide(mean, total, out=np.full(len(total), np.nan), where=total > 0),
        "calibration_intercept": _fit_offset(x, y, weights),
        "line_intercept": intercept,
        "calibration_slope": slope,
    }


def _transform(probabilities: Floats, line: CalibrationLine) -> Floats:
    return np.asarray(expit(line.intercept + line.slope * _logits(probabilities)), np.float64)


def _logits(probabilities: Floats) -> Floats:
    return np.asarray(logit(np.clip(probabilities, CLIP, 1 - CLIP)), np.float64)


def _fit(x: Floats, y: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return intercept and slope [B] by Newton's method, all rows of weights at once; nan if undefined."""
    centre, scale = x.mean(), x.std() or 1.0
    x = (x - centre) / scale  # so that steps and bounds mean the same for all scores
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    size = np.full(len(weights), np.inf)
    with np.errstate(all="ignore"):
        for _ in range(MAX_STEPS):
            p = expit(a[:, None] + b[:, None] * x)
            residual, spread = weights * (y - p), weights * p * (1 - p)
            gradient = residual.sum(axis=1), residual @ x
            h00, h01, h11 = spread.sum(axis=1), spread @ x, spread @ x**2
            determinant = h00 * h11 - h01**2
            steps = (
                (h11 * gradient[0] - h01 * gradient[1]) / determinant,
                (h00 * gradient[1] - h01 * gradient[0]) / determinant,
            )
            a, b = (v + np.clip(s, -LARGEST_STEP, LARGEST_STEP) for v, s in zip((a, b), steps, strict=True))
            size = np.maximum(*map(np.abs, steps))
            if not (size > TOLERANCE).any():
                break
        undefined = ~(size < 1e-6) | (np.abs(b) > LARGEST_EFFECT) | ~_has_both(y, weights)
    return np.where(undefined, np.nan, a - b * centre / scale), np.where(undefined, np.nan, b / scale)


def _fit_offset(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Return the intercept [B] with the slope held at 1; nan where one class is absent."""
    a = np.zeros(len(weights))
    with np.errstate(all="ignore"):
        for _ in range(MAX_STEPS):
            p = expit(a[:, None] + x)
            step = (weights * (y - p)).sum(axis=1) / (weights * p * (1 - p)).sum(axis=1)
            a = a + np.clip(step, -LARGEST_STEP, LARGEST_STEP)
            if not (np.abs(step) > TOLERANCE).any():
                break
    return np.where(_has_both(y, weights), a, np.nan)


def _has_both(y: Floats, weights: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray((weights @ y > 0) & (weights @ (1 - y) > 0))
