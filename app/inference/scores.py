"""Scores of held-out splits: from a network and prepared volumes to class probabilities."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from voxlift.app.data.cohort import Cohort
from voxlift.app.evaluation.metrics import score_metrics
from voxlift.app.evaluation.scores import Scores, ScoresError
from voxlift.data_pipelines.cache.format import PreparedVolumes

log = logging.getLogger("voxlift")

Predict = Callable[..., NDArray[np.float32]]  # with the arguments of `predict_logits`
MONITORED = ("auc", "accuracy", "balanced_accuracy")  # metrics of every epoch, besides the loss


class DivergedError(ScoresError):
    """Logits that are not finite, from weights that diverged in training."""


def score_split(
    network: Any,  # noqa: ANN401 - untyped Keras
    cohort: Cohort,
    split: str,
    *,
    batch_size: int,
    predict: Predict | None = None,
) -> Scores:
    """Return the scores of one split's volumes.

    Args:
        network: From volumes [B, D, H, W, C] to logits [B, K].
        cohort: With the split's prepared volumes.
        split: `train`, `val` or `test`.
        batch_size: Volumes scored at once.
        predict: Computes the logits; None is `predict_logits`.

    Raises:
        DivergedError: Logits are not finite.
    """
    volumes = cohort.prepared(split)
    probabilities = predict_probabilities(network, volumes, batch_size=batch_size, predict=predict)
    return build_split_scores(cohort, split, probabilities)


def predict_probabilities(
    network: Any,  # noqa: ANN401 - untyped Keras
    volumes: PreparedVolumes,
    *,
    batch_size: int,
    predict: Predict | None = None,
) -> NDArray[np.float64]:
    """Return class probabilities [N, K] float64 of prepared volumes, in order; arguments as in `score_split`.

    Raises:
        DivergedError: Logits are not finite.
    """
    logits = (predict or predict_logits)(network, volumes, batch_size=batch_size)
    if not np.isfinite(logits).all():
        raise DivergedError(
            "Expected finite logits from the network, but some are NaN or infinite: its training diverged. "
            "Try a lower optimizer.learning_rate, or precision=float32."
        )
    return np.asarray(softmax(logits.astype(np.float64), axis=1))


def predict_logits(network: Any, volumes: PreparedVolumes, *, batch_size: int) -> NDArray[np.float32]:  # noqa: ANN401 - untyped Keras
    """Return logits [N, K] of prepared volumes, in order."""
    from voxlift.data_pipelines.pipeline import evaluation_volumes

    return np.asarray(network.predict(evaluation_volumes(volumes, batch_size=batch_size), verbose=0))


def build_split_scores(cohort: Cohort, split: str, probabilities: NDArray[np.float64]) -> Scores:
    """Return the scores of one split from class probabilities [N, K] in the cohort's order."""
    records = [cohort.records[i] for i in cohort.indices(split)]
    return Scores(
        subjects=tuple(record.subject for record in records),
        labels=cohort.labels(split),
        probabilities=probabilities,
        classes=cohort.classes,
        items=tuple(record.item for record in records),
    )


def build_validation_scorer(
    network: Any,  # noqa: ANN401 - untyped Keras
    cohort: Cohort,
    *,
    batch_size: int,
    predict: Predict | None = None,
) -> Callable[[], dict[str, float]]:
    """Return a function that scores the validation volumes with the network's present weights.

    Its result holds `loss` and the metrics of `MONITORED`; nan for weights that have diverged, so that the
    best epoch before is kept. Arguments as in `score_split`.
    """

    def score() -> dict[str, float]:
        try:
            scores = score_split(network, cohort, "val", batch_size=batch_size, predict=predict)
            metrics = score_metrics(scores)
        except DivergedError:
            return dict.fromkeys(("loss", *MONITORED), math.nan)
        return {"loss": metrics["log_loss"]} | {name: metrics[name] for name in MONITORED}

    return score


def scoring_cost(network: Any, scorer: Any, cohort: Cohort, *, batch_size: int) -> dict[str, float]:  # noqa: ANN401 - untyped Keras
    """Return what scoring a volume costs: `flops` where the network's layers can be counted, and seconds.

    Args:
        network: As trained.
        scorer: Equivalent network used for scoring, see `fold_batch_norm`.
        cohort: With the validation volumes that are scored.
        batch_size: Volumes scored at once.
    """
    from voxlift.models.complexity import model_cost

    cost: dict[str, float] = {
        "seconds_per_volume": _seconds_per_volume(scorer, cohort, batch_size=batch_size)
    }
    try:
        return {"flops": model_cost(network, cohort.shape).flops, **cost}
    except ValueError as error:
        log.info("FLOPs are not counted: %s", error)
        return cost


def _seconds_per_volume(network: Any, cohort: Cohort, *, batch_size: int) -> float:  # noqa: ANN401 - untyped Keras
    """Return the seconds to read and score one validation volume after warm-up; the best of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        count = len(score_split(network, cohort, "val", batch_size=batch_size))
        times.append((time.perf_counter() - started) / count)
    return min(times)
