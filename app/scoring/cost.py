"""What scoring a volume costs."""

from __future__ import annotations

import logging
import time
from typing import Any

from voxlift.app.scoring.predicting import score_split
from voxlift.app.subjects.cohort import Cohort

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
