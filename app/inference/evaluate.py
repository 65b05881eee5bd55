"""From scores to `metrics.json`: threshold, calibration, metrics with intervals."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from voxlift.app.data.cohort import Cohort
from voxlift.app.evaluation.calibration import describe_calibration
from voxlift.app.evaluation.curves import choose_threshold
from voxlift.app.evaluation.intervals import evaluate_scores
from voxlift.app.evaluation.scores import Scores, ScoresError, average_by_subject
from voxlift.app.files import write_rows
from voxlift.app.inference.scores import score_split
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.predictions import prediction_rows

log = logging.getLogger("voxlift")


def evaluate_run(
    network: Any,  # noqa: ANN401 - untyped Keras
    cohort: Cohort,
    *,
    batch_size: int,
    run: RunFolder,
) -> dict[str, Any]:
    """Metrics with intervals for validation and test; writes `predictions.csv` for all three splits.

    The decision threshold of two classes is chosen on validation and stands in the result as `threshold`,
    with `threshold_reason` beside it. Metrics are per volume; where subjects have several, `by_subject` holds
    those of each subject's mean probability. `calibration` holds the temperature fitted on validation and
    what it changes.
    """
    scores = {split: score_split(network, cohort, split, batch_size=batch_size) for split in cohort.present}
    write_rows(run.predictions, prediction_rows(scores))
    return judge_scores(scores)


def judge_scores(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """What `metrics.json` says of a run's scores: threshold, calibration, and the metrics of val and test."""
    threshold, reason = decide_threshold(scores["val"])
    judged = {split: scores[split] for split in ("val", "test") if split in scores}
    return {
        "threshold": threshold,
        "threshold_reason": reason,
        "calibration": describe_calibration(scores["val"], judged),
        **{split: evaluate_scores(one, threshold=threshold) for split, one in judged.items()},
        **_judge_by_subject(judged, threshold),
    }


def _judge_by_subject(judged: Mapping[str, Scores], threshold: float | None) -> dict[str, Any]:
    """Metrics of each subject's mean probability, where some subject has several volumes and one label."""
    found = {}
    for split, scores in judged.items():
        if len(set(scores.subjects)) < len(scores):
            try:
                averaged = average_by_subject(scores)
            except ScoresError as error:
                log.info("No metrics per subject: %s", error)
                continue
            found[split] = evaluate_scores(averaged, threshold=threshold)
    return {"by_subject": found} if found else {}


def decide_threshold(validation: Scores) -> tuple[float | None, str]:
    """The threshold on class 1 that serves balanced accuracy best on validation, and how it came about.

    None where there is none to choose: with several classes, and where validation lacks a class.
    """
    if not validation.is_binary:
        return None, "several classes: the most probable one is decided"
    try:
        return choose_threshold(validation), "chosen on validation for the best balanced accuracy"
    except ScoresError as error:
        return None, f"0.5, since {error}"
