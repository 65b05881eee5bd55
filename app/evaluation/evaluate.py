"""The content of metrics.json: decision threshold, calibration, and metrics with intervals."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from voxlift.app.evaluation.bootstrap import RESAMPLES, bootstrap_intervals, metric_block
from voxlift.app.evaluation.calibration import apply_calibration, fit_calibration
from voxlift.app.evaluation.metrics import confusion_rates, score_metrics
from voxlift.app.evaluation.scores import Floats, Predictions, Scores, ScoresError, average_by_subject

log = logging.getLogger("voxlift")

CALIBRATION_METRICS = ("log_loss", "brier", "ece")


def evaluate_splits(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Return what metrics.json holds about a run's scores.

    The decision threshold of two classes is chosen on validation: `threshold`, with `threshold_reason`.
    `val` and `test` hold metrics per volume; where subjects have several volumes, `by_subject` holds those
    of each subject's mean probability. `calibration` holds the temperature (and bias) fitted on validation,
    and the metrics that these change, before and after scaling.

    Args:
        scores: Split name to its scores; `val` is among them.
    """
    threshold, reason = choose_validation_threshold(scores["val"])
    evaluated = {split: scores[split] for split in ("val", "test") if split in scores}
    blocks = {split: evaluate_scores(one, threshold=threshold) for split, one in evaluated.items()}
    fitted = fit_calibration(scores["val"])
    calibration = {
        **fitted.value.as_json(),
        "fitted_on": "val",
        "at_bound": fitted.at_bound,
        **{
            split: {
                "before": _calibration_block(blocks[split]),
                "after": _calibration_block(evaluate_scores(apply_calibration(one, fitted.value))),
            }
            for split, one in evaluated.items()
        },
    }
    return {
        "threshold": threshold,
        "threshold_reason": reason,
        "calibration": calibration,
        **blocks,
        **_evaluate_by_subject(evaluated, threshold),
    }


def evaluate_blocks(scores: Mapping[str, Predictions]) -> dict[str, Any]:
    """Return the blocks `val`, `test` and `by_subject` of metrics.json, for any task.

    Args:
        scores: Split name to its scores.
    """
    evaluated = {split: scores[split] for split in ("val", "test") if split in scores}
    blocks = {split: evaluate_scores(one) for split, one in evaluated.items()}
    return {**blocks, **_evaluate_by_subject(evaluated, None)}


def evaluate_scores(
    scores: Predictions,
    *,
    threshold: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the block of metrics.json for one split: every metric, with its interval under `intervals`.

    An undefined value is None (null in JSON). The counts n and subjects are integers. Arguments as in
    `bootstrap_intervals`.
    """
    values = score_metrics(scores, threshold=threshold)
    intervals = bootstrap_intervals(scores, threshold=threshold, resamples=resamples, seed=seed)
    return metric_block(values, intervals)


def choose_validation_threshold(validation: Scores) -> tuple[float | None, str]:
    """Return the threshold on class 1 with the best balanced accuracy on validation, and how it was chosen.

    None where there is none to choose: with several classes, and where validation lacks a class.
    """
    if not validation.is_binary:
        return None, "several classes: the most probable one is decided"
    try:
        return choose_threshold(validation), "chosen on validation for the best balanced accuracy"
    except ScoresError as error:
        return None, f"0.5, since {error}"


def choose_threshold(validation: Scores) -> float:
    """Return the threshold on the probability of class 1 with the largest Youden index on validation.

    The index, sensitivity + specificity - 1, ranks like balanced accuracy. Candidates lie halfway between
    neighbouring scores, so that a gap between the classes is cut in its middle; among equally good ones the
    one nearest 0.5 is taken.

    Args:
        validation: Scores of the validation split, two classes, both present.

    Returns:
        Threshold in 0..1; class 1 is predicted at or above it.

    Raises:
        ScoresError: Not two classes, or a class without a volume.

    Source:
        Youden 1950, doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3.
    """
    if not validation.is_binary:
        raise ScoresError(f"a threshold needs two classes, received {len(validation.classes)}")
    absent = [name for k, name in enumerate(validation.classes) if not (validation.labels == k).any()]
    if absent:
        raise ScoresError(
            f"no validation volume of class {absent[0]}: a threshold needs both classes; enlarge splits.val"
        )
    distinct = np.unique(np.concatenate((validation.probabilities[:, 1], [0.0, 1.0])))
    candidates = np.unique(np.concatenate(((distinct[1:] + distinct[:-1]) / 2, [0.0, 1.0])))
    rates = confusion_rates(_confusion_at(validation, candidates))
    youden = rates["sensitivity"][:, 1] + rates["specificity"][:, 1] - 1
    best = candidates[youden >= youden.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - 0.5))])


def _confusion_at(scores: Scores, thresholds: Floats) -> Floats:
    """Return the confusion matrices [T, 2, 2] at each threshold, rows the true class."""
    counts = []
    for label in (0, 1):
        ordered = np.sort(scores.probabilities[scores.labels == label, 1])
        below = np.searchsorted(ordered, thresholds, side="left")
        counts.append(np.stack([below, len(ordered) - below], axis=1))
    return np.stack(counts, axis=1).astype(np.float64)


def _calibration_block(block: Mapping[str, Any]) -> dict[str, Any]:
    metrics = {name: block[name] for name in CALIBRATION_METRICS}
    return metrics | {"intervals": {name: block["intervals"][name] for name in CALIBRATION_METRICS}}


def _evaluate_by_subject(evaluated: Mapping[str, Predictions], threshold: float | None) -> dict[str, Any]:
    """Return the metrics per subject, where subjects have several volumes and one label each."""
    blocks, problems = {}, {}
    for split, scores in evaluated.items():
        if len(set(scores.subjects)) < len(scores):
            try:
                averaged = average_by_subject(scores)
            except ScoresError as error:
                problems[split] = error
                continue
            blocks[split] = evaluate_scores(averaged, threshold=threshold)
    if problems and not any(isinstance(one, Scores) and one.is_paired for one in evaluated.values()):
        log.info("No metrics per subject: %s", next(iter(problems.values())))  # the others are the same
    return {"by_subject": blocks} if blocks else {}
