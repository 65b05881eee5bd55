"""From a volume network and prepared files to class probabilities and scores."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.data.cohort import Cohort
from voxlift.app.evaluation.metrics import score_metrics
from voxlift.app.evaluation.scores import Scores, ScoresError
from voxlift.data_pipelines.cache.prepared import PreparedVolumes
from voxlift.data_pipelines.tables.images import join_images

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
    from voxlift.data_pipelines.pipeline import evaluation_volumes

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
        items=tuple(join_images(record.images) for record in records),
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


log = logging.getLogger("voxlift")


def scoring_cost(network: Any, scorer: Any, cohort: Cohort, *, batch_size: int) -> dict[str, float]:  # noqa: ANN401 - untyped Keras
    """What scoring a volume costs: `flops` where the network's layers can be counted, and seconds.

    Args:
        network: as it was trained.
        scorer: what scores in its place, see `fold_normalisation`.
        cohort: whose validation volumes are scored.
        batch_size: volumes at once.
    """
    from voxlift.models.complexity import model_cost

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
