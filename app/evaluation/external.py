"""External data: a run's scores of other subjects, beside those of its own test subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from voxlift.app.evaluation.bootstrap import (
    RESAMPLES,
    finite_or_none,
    percentile_interval,
    point_metrics,
    resample_models,
    two_sided_p,
)
from voxlift.app.evaluation.delong import delong_unpaired
from voxlift.app.evaluation.evaluate import choose_threshold, evaluate_scores
from voxlift.app.evaluation.findings import Findings
from voxlift.app.evaluation.metrics import score_metrics
from voxlift.app.evaluation.numbers import Numbers
from voxlift.app.evaluation.recalibration import (
    list_outcomes,
    pick_metrics,
    recalibrate,
    summarise_calibration,
)
from voxlift.app.evaluation.scores import (
    Fits,
    Predictions,
    Scores,
    ScoresError,
    select_rows,
    with_threshold,
)

COMPARED = ("auc", "average_precision", "balanced_accuracy", "accuracy", "sensitivity", "specificity")


def unpaired_differences(
    internal: Fits,
    external: Fits,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, Any]]:
    """Return the difference of each metric, external minus internal, over subjects that differ.

    The AUC of two classes, of each finding and of each cut between grades has the interval and the p-value of
    DeLong with independent variances. Those of the others come from two independent bootstraps over subjects,
    of classes stratified by class.

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
    for name in _compared_metrics(external[0]):
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
                "p_value": two_sided_p(drawn),
                "method": "two bootstraps over subjects",
            }
            found[name] = {key: finite_or_none(value) for key, value in block.items()}
    for name, delong in _compare_outcomes(internal, external, level).items():
        if name in found:
            found[name] |= delong | {"method": "DeLong, independent variances"}
    return found


def compare_thresholds(external: Predictions) -> dict[str, dict[str, Any]]:
    """Return for the second class, or each finding, the threshold carried over and the one of these data.

    The metrics at the own threshold are optimistic: it was chosen on the subjects on which they are measured.
    Nothing where no threshold decides.
    """
    is_decided = isinstance(external, Findings) or (isinstance(external, Scores) and external.is_binary)
    outcomes = list_outcomes(external) if is_decided else {}
    return {name: _compare_threshold(one) for name, one in outcomes.items()}


def _compare_threshold(scores: Scores) -> dict[str, Any]:
    def describe(threshold: float) -> dict[str, Any]:
        metrics = score_metrics(with_threshold(scores, threshold))
        names = ("sensitivity", "specificity", "balanced_accuracy")
        return {"threshold": threshold, **pick_metrics(metrics, names)}

    found = {"carried_over": describe(scores.threshold)}
    try:
        return found | {"own": describe(choose_threshold(scores))}
    except ScoresError:  # an outcome is absent
        return found


def evaluate_range(
    scores: Predictions, warnings: Sequence[str], *, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Return how many volumes lie outside the training range, and the metrics without them.

    Args:
        scores: Of all external subjects, at the run's threshold.
        warnings: [N] texts, what of a volume lies outside; empty for none.
        resamples: Of the bootstrap.
    """
    is_inside = np.array([not text for text in warnings])
    block: dict[str, Any] = {"volumes": len(scores), "outside": int((~is_inside).sum())}
    if is_inside.any() and not is_inside.all():
        inside = select_rows(scores, np.flatnonzero(is_inside))
        outside = select_rows(scores, np.flatnonzero(~is_inside))
        block["inside"] = evaluate_scores(inside, resamples=resamples)
        block["only_outside"] = evaluate_scores(outside, resamples=resamples)
    return block


def evaluate_external(
    external: Predictions,
    internal: Fits,
    *,
    warnings: Sequence[str],
    recalibrated_part: float = 0.0,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what metrics.json holds about external data.

    Args:
        external: Predictions for the external subjects, at the run's own threshold.
        internal: Predictions for the run's test subjects; several fits where folds were averaged; empty for
            none.
        warnings: [N] texts, as in `evaluate_range`.
        recalibrated_part: As `evaluation.recalibrate`.
        resamples: Of every bootstrap.
        seed: Of the part that is recalibrated on.
    """
    found: dict[str, Any] = {
        "external": evaluate_scores(external, resamples=resamples),
        "training_range": evaluate_range(external, warnings, resamples=resamples),
        "calibration_external": summarise_calibration(external, resamples=resamples),
    }
    if compared := compare_thresholds(external):
        found["threshold_comparison"] = compared
    if internal:
        found["difference"] = unpaired_differences(internal, [external], resamples=resamples)
    if len(internal) == 1:
        found["calibration_internal"] = summarise_calibration(internal[0], resamples=resamples)
    if recalibrated_part:
        found["recalibration"] = _recalibrate_or_explain(external, recalibrated_part, resamples, seed)
    return found


def _recalibrate_or_explain(
    external: Predictions, fraction: float, resamples: int, seed: int
) -> dict[str, Any]:
    """Return the recalibration; or why there is none, since the other figures are worth more than it."""
    try:
        return recalibrate(external, fraction, resamples=resamples, seed=seed)
    except ScoresError as error:
        return {"fraction": fraction, "problem": str(error)}


def _compared_metrics(scores: Predictions) -> tuple[str, ...]:
    """Return the metrics whose difference is shown."""
    if isinstance(scores, Numbers):
        return (*scores.headline, "mean_error", "calibration_slope")
    of_outcomes = (f"auc[{name}]" for name in list_outcomes(scores))
    if isinstance(scores, Scores) and scores.is_stratified:  # classes without an order
        return COMPARED
    return (*scores.headline, *of_outcomes)


def _compare_outcomes(internal: Fits, external: Fits, level: float) -> dict[str, dict[str, Any]]:
    """Return DeLong's difference of the AUC of each outcome, by the key of the metric."""
    sides = [[list_outcomes(fit) for fit in fits] for fits in (internal, external)]
    names = [name for name in sides[0][0] if all(name in one for side in sides for one in side)]
    found = {}
    for name in names:
        try:
            result = asdict(delong_unpaired(*([one[name] for one in side] for side in sides), level=level))
        except ScoresError:
            continue
        is_only = isinstance(internal[0], Scores) and internal[0].is_binary
        values = ("difference", "low", "high", "p_value")
        found["auc" if is_only else f"auc[{name}]"] = {one: finite_or_none(result[one]) for one in values}
    return found
