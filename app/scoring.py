"""From a volume network and prepared files to probabilities, `predictions.csv` and metrics."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.cohort import Cohort
from app.evaluation.intervals import evaluate_scores
from app.evaluation.scores import Scores, ScoresError
from app.files import write_rows
from app.runs import RunFolder
from data_pipelines.prepared import PreparedVolumes

log = logging.getLogger("voxlift")

Predict = Callable[..., NDArray[np.float32]]  # of the form of `predict_logits`


class DivergedError(ScoresError):
    """The network's weights give no numbers."""


def predict_probabilities(
    network: Any,  # noqa: ANN401 - untyped Keras
    volumes: PreparedVolumes,
    *,
    batch_size: int,
    predict: Predict | None = None,
) -> NDArray[np.float64]:
    """Class probabilities [N, K] float64 of prepared volumes, each scored once, in order.

    Args:
        network: gives logits.
        volumes: what is scored.
        batch_size: volumes at once.
        predict: what gives the logits, by default `predict_logits`.

    Raises:
        DivergedError: the network gives values that are no numbers.
    """
    logits = (predict or predict_logits)(network, volumes, batch_size=batch_size)
    if not np.isfinite(logits).all():
        raise DivergedError(
            "expected finite scores from the network, but some are not numbers: its training diverged. Try a "
            "lower optimizer.learning_rate, or precision=float32."
        )
    return softmax(logits)


def predict_logits(network: Any, volumes: PreparedVolumes, *, batch_size: int) -> NDArray[np.float32]:  # noqa: ANN401 - untyped Keras
    """Logits [N, K] of prepared volumes, each computed once, in order."""
    from data_pipelines.pipeline import evaluation_volumes

    return np.asarray(network.predict(evaluation_volumes(volumes, batch_size=batch_size), verbose=0))


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probabilities [N, K] in float64, computed without overflow.

    >>> softmax(np.array([[1000.0, 1000.0]])).tolist()
    [[0.5, 0.5]]
    """
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def score_split(
    network: Any,  # noqa: ANN401 - untyped Keras
    cohort: Cohort,
    split: str,
    *,
    batch_size: int,
    predict: Predict | None = None,
) -> Scores:
    """The scores of one split's volumes; `predict` as in `predict_probabilities`."""
    volumes = cohort.prepared(split)
    probabilities = predict_probabilities(network, volumes, batch_size=batch_size, predict=predict)
    return scores_of_split(cohort, split, probabilities)


def scores_of_split(cohort: Cohort, split: str, probabilities: NDArray[np.float64]) -> Scores:
    """One split's volumes with their class probabilities [N, K], in the cohort's order."""
    records = [cohort.records[i] for i in cohort.indices(split)]
    return Scores(
        subjects=tuple(record.subject for record in records),
        labels=cohort.labels(split),
        probabilities=probabilities,
        classes=cohort.classes,
        items=tuple("|".join(map(str, record.images)) for record in records),
    )


def validation_score(
    network: Any,  # noqa: ANN401 - untyped Keras
    cohort: Cohort,
    *,
    batch_size: int,
    predict: Predict | None = None,
) -> Callable[[], dict[str, float]]:
    """A function that scores the validation volumes with the network's present weights.

    Weights that have diverged give nan for every metric, so that the best epoch before it is kept.
    """
    from app.evaluation.metrics import score_metrics

    def score() -> dict[str, float]:
        try:
            scores = score_split(network, cohort, "val", batch_size=batch_size, predict=predict)
            metrics = score_metrics(scores)
        except DivergedError:
            return dict.fromkeys(("loss", "auc", "accuracy", "balanced_accuracy"), math.nan)
        return {"loss": metrics["log_loss"]} | {
            name: metrics[name] for name in ("auc", "accuracy", "balanced_accuracy")
        }

    return score


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
    from app.evaluation.calibration import describe_calibration

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
    from app.evaluation.scores import average_by_subject

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


def scoring_cost(network: Any, scorer: Any, cohort: Cohort, *, batch_size: int) -> dict[str, float]:  # noqa: ANN401 - untyped Keras
    """What scoring a volume costs: `flops` where the network's layers can be counted, and seconds.

    Args:
        network: as it was trained.
        scorer: what scores in its place, see `fold_normalisation`.
        cohort: whose validation volumes are scored.
        batch_size: volumes at once.
    """
    from models.complexity import model_cost

    cost: dict[str, float] = {"seconds_per_volume": seconds_per_volume(scorer, cohort, batch_size=batch_size)}
    try:
        return {"flops": model_cost(network, cohort.shape).flops, **cost}
    except ValueError as error:
        log.info("FLOPs are not counted: %s", error)
        return cost


def seconds_per_volume(network: Any, cohort: Cohort, *, batch_size: int) -> float:  # noqa: ANN401 - untyped Keras
    """Seconds to read and score one validation volume when all is traced and warm; the best of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        count = len(score_split(network, cohort, "val", batch_size=batch_size))
        times.append((time.perf_counter() - started) / count)
    return min(times)


def decide_threshold(validation: Scores) -> tuple[float | None, str]:
    """The threshold on class 1 that serves balanced accuracy best on validation, and how it came about.

    None where there is none to choose: with several classes, and where validation lacks a class.
    """
    from app.evaluation.thresholds import choose_threshold

    if not validation.is_binary:
        return None, "several classes: the most probable one is decided"
    try:
        return choose_threshold(validation), "chosen on validation for the best balanced accuracy"
    except ScoresError as error:
        return None, f"0.5, since {error}"


def show_metrics(metrics: Mapping[str, Any], *, name: str) -> None:
    """Print the metrics of each split with their intervals."""
    from app.report.terminal import print_metrics

    print_metrics({f"{name}, {split}": metrics[split] for split in ("val", "test") if split in metrics})


def prediction_rows(scores: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """Rows of `predictions.csv`: subject, image, split, label, and one probability column per class."""
    return [row for split, values in scores.items() for row in _rows_of_split(split, values)]


def _rows_of_split(split: str, scores: Scores) -> list[dict[str, Any]]:
    columns = [f"p_{name}" for name in scores.classes]
    heads = zip(scores.subjects, scores.items, scores.labels, scores.probabilities, strict=True)
    return [
        {"subject": subject, "image": image, "split": split, "label": scores.classes[label]}
        | dict(zip(columns, map(float, row), strict=True))
        for subject, image, label, row in heads
    ]


def scores_from_rows(rows: Sequence[Mapping[str, str]], classes: tuple[str, ...], *, split: str) -> Scores:
    """The inverse of `prediction_rows` for one split."""
    chosen = [row for row in rows if row["split"] == split]
    return Scores(
        subjects=tuple(row["subject"] for row in chosen),
        labels=np.array([classes.index(row["label"]) for row in chosen], np.int64),
        probabilities=np.array([[float(row[f"p_{name}"]) for name in classes] for row in chosen]).reshape(
            -1, len(classes)
        ),
        classes=classes,
        items=tuple(row["image"] for row in chosen),
    )
