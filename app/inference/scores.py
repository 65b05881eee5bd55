"""Scores of held-out splits, from a network and prepared volumes, and what they cost."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from voxlift.app.data.cohort import Cohort
from voxlift.app.evaluation.scores import ScoresError
from voxlift.app.tasks.base import ScoredRows
from voxlift.data_pipelines.cache.format import PreparedVolumes

log = logging.getLogger("voxlift")

STEADY_SECONDS = 1.0  # of measured time, from which on a measurement is not repeated

Predict: TypeAlias = Callable[..., NDArray[np.float32]]
"""With the arguments of `predict_logits`."""


class DivergedError(ScoresError):
    """Logits that are not finite, from weights that diverged in training."""


def score_split(
    network: Any,  # noqa: ANN401 - untyped Keras
    cohort: Cohort,
    split: str,
    *,
    batch_size: int,
    predict: Predict | None = None,
) -> Any:  # noqa: ANN401 - the task's own class
    """Return the scores of one split's volumes.

    Args:
        network: From volumes [B, D, H, W, C] (and columns of the table) to outputs [B, K].
        cohort: With the split's prepared volumes.
        split: `train`, `val` or `test`.
        batch_size: Volumes scored at once.
        predict: Computes the logits; None is `predict_logits`.

    Raises:
        DivergedError: Logits are not finite.
    """
    outputs = predict_outputs(network, cohort.prepared(split), batch_size=batch_size, predict=predict)
    return build_split_scores(cohort, split, cohort.task.predict(outputs))


def predict_outputs(
    network: Any,  # noqa: ANN401 - untyped Keras
    volumes: PreparedVolumes,
    *,
    batch_size: int,
    predict: Predict | None = None,
) -> NDArray[np.float32]:
    """Return the finite outputs [N, K] of a network, in order; arguments as in `score_split`.

    Raises:
        DivergedError: Outputs are not finite.
    """
    logits = (predict or predict_logits)(network, volumes, batch_size=batch_size)
    if not np.isfinite(logits).all():
        raise DivergedError(
            "Expected finite logits from the network, but some are NaN or infinite: its training diverged. "
            "Try a lower optimizer.learning_rate, or precision=float32."
        )
    return logits


def predict_logits(network: Any, volumes: PreparedVolumes, *, batch_size: int) -> NDArray[np.float32]:  # noqa: ANN401 - untyped Keras
    """Return logits [N, K] of prepared volumes, in order.

    Args:
        network: From volumes [B, D, H, W, C] (and columns of the table) to logits [B, K].
        volumes: N prepared volumes.
        batch_size: Volumes scored at once.
    """
    from voxlift.data_pipelines.pipeline import evaluation_volumes

    return np.asarray(network.predict(evaluation_volumes(volumes, batch_size=batch_size), verbose=0))


def build_split_scores(cohort: Cohort, split: str, predictions: NDArray[np.float64]) -> Any:  # noqa: ANN401 - the task's own class
    """Return the scores of one split from its predictions [N, K] in the cohort's order.

    Args:
        cohort: With the records of the split.
        split: `train`, `val` or `test`.
        predictions: Probabilities or numbers [N, K].
    """
    records = [cohort.records[i] for i in cohort.indices(split)]
    rows = ScoredRows(
        subjects=tuple(record.subject for record in records),
        labels=cohort.labels(split),
        training=cohort.labels("train"),
        items=tuple(record.item for record in records),
    )
    return cohort.task.build_scores(rows, predictions, cohort.classes)


def build_validation_scorer(
    network: Any,  # noqa: ANN401 - untyped Keras
    cohort: Cohort,
    *,
    batch_size: int,
    predict: Predict | None = None,
) -> Callable[[], dict[str, float]]:
    """Return a function that scores the validation volumes with the network's present weights.

    Its result holds `loss` and the other monitors of the task; nan for weights that have diverged, so that
    the best epoch before is kept. Arguments as in `score_split`.
    """
    task, head = cohort.task, cohort.head()

    def score() -> dict[str, float]:
        try:
            scores = score_split(network, cohort, "val", batch_size=batch_size, predict=predict)
        except DivergedError:
            return dict.fromkeys(task.monitors, math.nan)
        return task.validation_metrics(scores, head)

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
        shapes = [cohort.shape, *(tuple(one.shape[1:]) for one in network.inputs[1:])]
        return {"flops": model_cost(network, shapes).flops, **cost}
    except ValueError as error:
        log.info("FLOPs are not counted: %s", error)
        return cost


def _seconds_per_volume(network: Any, cohort: Cohort, *, batch_size: int) -> float:  # noqa: ANN401 - untyped Keras
    """Return the seconds to read and score one validation volume after warm-up.

    The best of three passes; of fewer where they take longer than `STEADY_SECONDS`.
    """
    times: list[float] = []
    while len(times) < 3 and sum(times) < STEADY_SECONDS:
        started = time.perf_counter()
        count = len(score_split(network, cohort, "val", batch_size=batch_size))
        times.append(time.perf_counter() - started)
    return min(times) / count
