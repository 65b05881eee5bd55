"""Calibration of any predictions, and its correction on a part of the subjects, as other data may need."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any, TypeAlias

import numpy as np

from voxlift.app.evaluation.bootstrap import RESAMPLES, finite_or_none, metric_block, subject_strata
from voxlift.app.evaluation.calibration import apply_calibration, fit_calibration
from voxlift.app.evaluation.calibration_line import CalibrationLine, apply_line, fit_line, line_draws
from voxlift.app.evaluation.evaluate import CALIBRATION_METRICS
from voxlift.app.evaluation.findings import Findings
from voxlift.app.evaluation.grades import Grades, cut_scores
from voxlift.app.evaluation.metrics import metric_draws, score_metrics
from voxlift.app.evaluation.numbers import Numbers
from voxlift.app.evaluation.scores import (
    Flags,
    Floats,
    Predictions,
    Scores,
    ScoresError,
    index_subjects,
    select_rows,
)
from voxlift.app.evaluation.subgroups import resample_metrics

LINE = ("prevalence", "mean_predicted", "calibration_intercept", "calibration_slope")
OF_NUMBERS = ("calibration_intercept", "calibration_slope", "mean_error", "mae", "rmse")

Correction: TypeAlias = tuple[dict[str, Any], Callable[[Any], Any]]
"""What was fitted, for metrics.json, and the function that applies it to predictions of the same kind."""


@singledispatch
def list_outcomes(scores: Predictions) -> dict[str, Scores]:  # noqa: ARG001 - of no kind that is known
    """Return each outcome that is predicted with a probability, as two classes, by its name.

    Two classes: the second one. Findings: each one that is known of a volume. Grades: each cut between them.
    Nothing for several classes and for numbers.
    """
    return {}


@list_outcomes.register
def _(scores: Scores) -> dict[str, Scores]:
    return {scores.classes[1]: scores} if scores.is_binary else {}


@list_outcomes.register
def _(scores: Findings) -> dict[str, Scores]:
    known = [index for index in range(len(scores.names)) if scores.is_known[:, index].any()]
    return {scores.names[index]: scores.finding(index) for index in known}


@list_outcomes.register
def _(scores: Grades) -> dict[str, Scores]:
    return {name: cut_scores(scores, cut) for cut, name in enumerate(scores.cuts)}


def summarise_calibration(
    scores: Predictions, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Return the calibration of predictions, with intervals by subject under `intervals`.

    Of probabilities: log loss, Brier score and calibration error; of two classes also prevalence, mean
    predicted probability, calibration in the large (the intercept with slope 1) and slope, which findings and
    cuts between grades have under `outcomes`, by name. Of numbers: intercept and slope of the line of
    measured on predicted, and errors. Subjects are resampled without strata, since calibration depends on how
    frequent the classes are.

    Args:
        scores: Of any task.
        resamples: Of the bootstrap.
        seed: Of the draws.
    """
    if isinstance(scores, Numbers):
        return {"n": len(scores), **_with_intervals(scores, _number_draws, resamples, seed)}
    block: dict[str, Any] = {"n": len(scores), **pick_metrics(score_metrics(scores), CALIBRATION_METRICS)}
    if isinstance(scores, Scores) and scores.is_binary:
        return block | _with_intervals(scores, _line_only, resamples, seed)
    outcomes = {
        name: summarise_calibration(one, resamples=resamples, seed=seed)
        for name, one in list_outcomes(scores).items()
    }
    return block | ({"outcomes": outcomes} if outcomes else {})


def recalibrate(
    scores: Predictions, fraction: float, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Return the calibration of the remaining subjects before and after recalibration on a part of them.

    Two classes, and each finding: logistic recalibration, an intercept and a slope on the logit. Several
    classes, and grades: a temperature, with a bias where that is not enough. Numbers: the line of measured on
    predicted.

    Args:
        scores: Of all external subjects.
        fraction: Of the subjects (of each class) on which the recalibration is fitted.
        resamples: Of the bootstrap.
        seed: Draws the part, and the resamples.

    Raises:
        ScoresError: A recalibration cannot be fitted on the part.
    """
    is_part = draw_part(scores, fraction, seed=seed)
    part, rest = (select_rows(scores, np.flatnonzero(rows)) for rows in (is_part, ~is_part))
    fitted, apply = fit_correction(part)
    return {
        "fraction": fraction,
        "fitted_on_subjects": len(set(part.subjects)),
        "scored_subjects": len(set(rest.subjects)),
        **fitted,
        "before": summarise_calibration(rest, resamples=resamples, seed=seed),
        "after": summarise_calibration(apply(rest), resamples=resamples, seed=seed),
    }


@singledispatch
def fit_correction(part: Predictions) -> Correction:
    """Return the recalibration that is fitted on a part of the subjects.

    Raises:
        ScoresError: It cannot be fitted on them.
    """
    raise NotImplementedError(f"{type(part).__name__} has no recalibration.")


@fit_correction.register
def _(part: Scores) -> Correction:
    if part.is_binary:
        line = fit_line(part)
        return _line_values(line), lambda scores: apply_line(scores, line)
    calibration = fit_calibration(part).value
    return calibration.as_json(), lambda scores: apply_calibration(scores, calibration)


@fit_correction.register
def _(part: Findings) -> Correction:
    lines = {name: _line_or_none(one) for name, one in list_outcomes(part).items()}
    if not any(lines.values()):
        raise ScoresError(
            "No finding can be recalibrated: each needs both outcomes among the subjects, and scores that do "
            "not separate them."
        )
    fitted = {name: None if line is None else _line_values(line) for name, line in lines.items()}
    return {"outcomes": fitted}, lambda scores: _apply_lines(scores, lines)


@fit_correction.register
def _(part: Numbers) -> Correction:
    metrics = score_metrics(part)
    intercept, slope = metrics["calibration_intercept"], metrics["calibration_slope"]
    if not math.isfinite(slope):
        raise ScoresError("A line needs predictions that differ; all are the same number.")
    fitted = {"intercept": intercept, "slope": slope}
    return fitted, lambda scores: replace(scores, values=intercept + slope * scores.values)


def draw_part(scores: Predictions, fraction: float, *, seed: int) -> Flags:
    """Return which rows [N] belong to a part of the subjects, of classes drawn within each set of labels.

    At least one subject of each set is in the part, and one is not.

    Args:
        scores: Of all subjects.
        fraction: Of the subjects (of each set of labels) that are in the part.
        seed: Of the draw.

    Raises:
        ScoresError: There are too few subjects to divide.
    """
    _, (rows,) = index_subjects([scores])
    strata = subject_strata([scores])
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(strata), bool)
    for subjects in (np.flatnonzero(strata == stratum) for stratum in np.unique(strata)):
        if len(subjects) < 2:
            of_class = " of each class" if scores.is_stratified else ""
            raise ScoresError(
                f"evaluation.recalibrate: expected two subjects or more{of_class}; there are too few. Set "
                "evaluation.recalibrate=0."
            )
        count = min(max(1, round(fraction * len(subjects))), len(subjects) - 1)
        chosen[rng.permutation(subjects)[:count]] = True
    return chosen[rows]


def pick_metrics(metrics: Mapping[str, float], names: Sequence[str]) -> dict[str, Any]:
    """Return some metrics, those that there are, with None for what JSON cannot hold."""
    return {name: finite_or_none(metrics[name]) for name in names if name in metrics}


def _with_intervals(
    scores: Predictions, draws: Callable[[Any, Floats], Mapping[str, Floats]], resamples: int, seed: int
) -> dict[str, Any]:
    return metric_block(
        *resample_metrics([scores], draws, resamples=resamples, seed=seed, is_stratified=False)
    )


def _line_only(scores: Scores, weights: Floats) -> dict[str, Floats]:
    return {name: values for name, values in line_draws(scores, weights).items() if name in LINE}


def _number_draws(scores: Numbers, weights: Floats) -> dict[str, Floats]:
    every = metric_draws(scores, weights)
    return {name: every[name] for name in OF_NUMBERS}


def _line_or_none(scores: Scores) -> CalibrationLine | None:
    try:
        return fit_line(scores)
    except ScoresError:
        return None


def _line_values(line: CalibrationLine) -> dict[str, float]:
    return {"intercept": line.intercept, "slope": line.slope}


def _apply_lines(scores: Findings, lines: Mapping[str, CalibrationLine | None]) -> Findings:
    """Return findings with the recalibrated probabilities of those that have a line."""
    probabilities, thresholds = scores.probabilities.copy(), list(scores.thresholds)
    for index, name in enumerate(scores.names):
        line = lines.get(name)
        if line is not None and scores.is_known[:, index].any():
            recalibrated = apply_line(scores.finding(index), line)
            probabilities[scores.is_known[:, index], index] = recalibrated.probabilities[:, 1]
            thresholds[index] = recalibrated.threshold
    return replace(scores, probabilities=probabilities, thresholds=tuple(thresholds))
