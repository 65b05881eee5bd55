"""External data: a run's scores of other subjects, beside those of its own test subjects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from voxlift.app.evaluation.bootstrap import (
    RESAMPLES,
    percentile_interval,
    point_metrics,
    resample_models,
)
from voxlift.app.evaluation.calibration import apply_temperature, fit_temperature
from voxlift.app.evaluation.calibration_line import apply_line, fit_line, line_draws
from voxlift.app.evaluation.delong import delong_unpaired
from voxlift.app.evaluation.evaluate import CALIBRATION_METRICS, choose_threshold, evaluate_scores
from voxlift.app.evaluation.metrics import score_metrics
from voxlift.app.evaluation.scores import (
    ClassFits,
    Flags,
    Floats,
    Scores,
    ScoresError,
    index_subjects,
    select_rows,
    with_threshold,
)
from voxlift.app.evaluation.subgroups import resample_metrics

COMPARED = ("auc", "average_precision", "balanced_accuracy", "accuracy", "sensitivity", "specificity")
LINE = ("prevalence", "mean_predicted", "calibration_intercept", "calibration_slope")


def unpaired_differences(
    internal: ClassFits,
    external: ClassFits,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, Any]]:
    """Return the difference of each metric, external minus internal, over subjects that differ.

    Of two classes, the AUC's interval and p-value are DeLong's with independent variances. Those of the
    others come from two independent bootstraps over subjects, stratified by class.

    Args:
        internal: Scores of the run's own test subjects, one per fit.
        external: Scores of the other subjects, one per fit.
        resamples: Of each bootstrap.
        seed: Of the first; the second has the next one.
        level: Coverage of the intervals.
    """
    (first,) = resample_models([internal], resamples=resamples, seed=seed)
    (second,) = resample_models([external], resamples=resamples, seed=seed + 1)
    points = point_metrics(internal), point_metrics(external)
    found = {}
    for name in COMPARED:
        if name in points[0] and name in points[1]:
            before, after = points[0][name], points[1][name]
            drawn = second[name] - first[name]
            low, high = percentile_interval(drawn, level)
            block = {
                "internal": before,
                "external": after,
                "difference": after - before,
                "low": low,
                "high": high,
                "p_value": _two_sided_p(drawn),
                "method": "two bootstraps over subjects",
            }
            found[name] = {key: _finite_or_none(value) for key, value in block.items()}
    delong = _delong_or_none(internal, external, level)
    if delong is not None:
        found["auc"] |= delong | {"method": "DeLong, independent variances"}
    return found


def describe_threshold(external: Scores, threshold: float | None) -> dict[str, Any]:
    """Return the threshold carried over and, apart, the one that these data would choose, with its metrics.

    The metrics at the own threshold are optimistic: it was chosen on the subjects on which they are measured.
    """
    names = ("sensitivity", "specificity", "balanced_accuracy")
    found: dict[str, Any] = {"carried_over": _pick(score_metrics(external, threshold=threshold), names)}
    found["carried_over"]["threshold"] = threshold
    try:
        own = choose_threshold(external)
    except ScoresError:
        return found
    found["own"] = {"threshold": own, **_pick(score_metrics(external, threshold=own), names)}
    return found


def summarise_calibration(scores: Scores, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Return the calibration of a set of scores, with intervals by subject under `intervals`.

    Of two classes: prevalence, mean predicted probability, calibration in the large (the intercept with slope
    1) and slope. Always: log loss, Brier score and calibration error. Subjects are resampled without strata,
    since calibration depends on how frequent the classes are.
    """

    def draws(own: Scores, weights: Floats) -> dict[str, Floats]:
        return {name: values for name, values in line_draws(own, weights).items() if name in LINE}

    metrics = score_metrics(scores)
    block: dict[str, Any] = {"n": len(scores), **_pick(metrics, CALIBRATION_METRICS)}
    if not scores.is_binary:
        return block
    values, intervals = resample_metrics([scores], draws, resamples=resamples, seed=seed, is_stratified=False)
    block |= {name: _finite_or_none(value) for name, value in values.items()}
    block["intervals"] = {name: [*map(_finite_or_none, pair)] for name, pair in intervals.items()}
    return block


def recalibrate(
    scores: Scores, fraction: float, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Return the calibration of the remaining subjects before and after recalibration on a part of them.

    Two classes: logistic recalibration, an intercept and a slope on the logit. Several: a temperature.

    Args:
        scores: Of all external subjects.
        fraction: Of the subjects of each class on which the recalibration is fitted.
        resamples: Of the bootstrap.
        seed: Draws the part, and the resamples.

    Raises:
        ScoresError: A recalibration cannot be fitted on the part.
    """
    is_part = draw_part(scores, fraction, seed=seed)
    part, rest = (select_rows(scores, np.flatnonzero(rows)) for rows in (is_part, ~is_part))
    if scores.is_binary:
        line = fit_line(part)
        fitted: dict[str, Any] = {"intercept": line.intercept, "slope": line.slope}
        after = apply_line(rest, line)
    else:
        fitted = {"temperature": fit_temperature(part).value}
        after = apply_temperature(rest, fitted["temperature"])
    return {
        "fraction": fraction,
        "fitted_on_subjects": len(set(part.subjects)),
        "scored_subjects": len(set(rest.subjects)),
        **fitted,
        "before": summarise_calibration(rest, resamples=resamples, seed=seed),
        "after": summarise_calibration(after, resamples=resamples, seed=seed),
    }


def draw_part(scores: Scores, fraction: float, *, seed: int) -> Flags:
    """Return which rows [N] belong to a part of the subjects, drawn within each set of labels.

    At least one subject of each set is in the part, and one is not.

    Raises:
        ScoresError: Only one subject has a set of labels.
    """
    names, (rows,) = index_subjects([scores])
    labels: dict[int, set[int]] = {}
    for row, label in zip(rows, scores.labels, strict=True):
        labels.setdefault(int(row), set()).add(int(label))
    strata: dict[tuple[int, ...], list[int]] = {}
    for subject in range(len(names)):
        strata.setdefault(tuple(sorted(labels[subject])), []).append(subject)
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(names), bool)
    for _, subjects in sorted(strata.items()):
        if len(subjects) < 2:
            raise ScoresError(
                "evaluation.recalibrate: expected two subjects or more of each class; one class has "
                f"{len(subjects)}. Set evaluation.recalibrate=0."
            )
        count = min(max(1, round(fraction * len(subjects))), len(subjects) - 1)
        chosen[rng.permutation(subjects)[:count]] = True
    return chosen[rows]


def evaluate_range(
    scores: Scores, warnings: Sequence[str], *, threshold: float | None, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Return how many volumes lie outside the training range, and the metrics without them.

    Args:
        scores: Of all external subjects.
        warnings: [N] texts, what of a volume lies outside; empty for none.
        threshold: As carried over.
        resamples: Of the bootstrap.
    """
    is_inside = np.array([not text for text in warnings])
    block: dict[str, Any] = {"volumes": len(scores), "outside": int((~is_inside).sum())}
    if is_inside.any() and not is_inside.all():
        inside = select_rows(scores, np.flatnonzero(is_inside))
        outside = select_rows(scores, np.flatnonzero(~is_inside))
        block["inside"] = evaluate_scores(inside, threshold=threshold, resamples=resamples)
        block["only_outside"] = evaluate_scores(outside, threshold=threshold, resamples=resamples)
    return block


def evaluate_external(
    external: Scores,
    internal: ClassFits,
    *,
    warnings: Sequence[str],
    threshold: float | None,
    recalibrated_part: float = 0.0,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what metrics.json holds about external data.

    Args:
        external: Scores of the external subjects.
        internal: Scores of the run's test subjects; several fits where folds were averaged; empty for none.
        warnings: [N] texts, as in `evaluate_range`.
        threshold: The run's own, on class 1; None for several classes.
        recalibrated_part: As `evaluation.recalibrate`.
        resamples: Of every bootstrap.
        seed: Of the part that is recalibrated on.
    """
    decided = external if threshold is None else with_threshold(external, threshold)
    found: dict[str, Any] = {
        "threshold": threshold,
        "threshold_reason": "carried over from the run, where it was chosen on validation",
        "external": evaluate_scores(external, threshold=threshold, resamples=resamples),
        "training_range": evaluate_range(external, warnings, threshold=threshold, resamples=resamples),
        "calibration_external": summarise_calibration(external, resamples=resamples),
    }
    if external.is_binary:
        found["thresholds"] = describe_threshold(external, threshold)
    if internal:
        found["difference"] = unpaired_differences(internal, [decided], resamples=resamples)
    if len(internal) == 1:
        found["calibration_internal"] = summarise_calibration(internal[0], resamples=resamples)
    if recalibrated_part:
        found["recalibration"] = recalibrate(external, recalibrated_part, resamples=resamples, seed=seed)
    return found


def _delong_or_none(internal: ClassFits, external: ClassFits, level: float) -> dict[str, Any] | None:
    if not internal[0].is_binary:
        return None
    try:
        result = asdict(delong_unpaired(internal, external, level=level))
    except ScoresError:
        return None
    return {name: _finite_or_none(result[name]) for name in ("difference", "low", "high", "p_value")}


def _two_sided_p(draws: Floats) -> float:
    """Return twice the smaller share of draws on either side of 0, with one added to both counts."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return math.nan
    below, above = int((finite <= 0).sum()), int((finite >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(finite) + 1))


def _pick(metrics: Mapping[str, float], names: Sequence[str]) -> dict[str, Any]:
    return {name: _finite_or_none(metrics[name]) for name in names if name in metrics}


def _finite_or_none(value: Any) -> Any:  # noqa: ANN401 - a number, or text that is kept
    return None if isinstance(value, float) and not math.isfinite(value) else value
