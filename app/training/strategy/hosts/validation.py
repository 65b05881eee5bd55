"""Validation volumes scored by several processes, each of which reads its share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.data.cohort import Cohort
from voxlift.app.inference.scores import predict_logits, validation_score
from voxlift.app.training.networks import Networks
from voxlift.app.training.strategy.hosts.data_parallel import agreed, alone, hand_over_weights
from voxlift.app.training.strategy.hosts.rendezvous import own_index, process_count
from voxlift.data_pipelines.cache.prepared import PreparedVolumes


def score_together(networks: Networks, cohort: Cohort, *, batch_size: int) -> Callable[[], dict[str, float]]:
    """A function that scores the validation volumes, of which each process reads its share.

    The figures are equal to the last bit in all processes: whether a training stops early hangs on them.
    """
    score = validation_score(networks.volume, cohort, batch_size=batch_size, predict=shared_logits)

    def together() -> dict[str, float]:
        hand_over_weights(networks)
        return agreed(score())

    return together


def shared_logits(network: Any, volumes: PreparedVolumes, *, batch_size: int) -> NDArray[np.float32]:  # noqa: ANN401 - untyped Keras
    """Logits [N, K] of prepared volumes, in order; every process computes some and gets all."""
    from jax.experimental import multihost_utils

    index, count, total = own_index(), process_count(), len(volumes)
    own = replace(volumes, files=volumes.files[index::count])
    padded = np.zeros((-(-total // count), int(network.output_shape[-1])), np.float32)
    with alone():
        if len(own):
            padded[: len(own)] = predict_logits(network, own, batch_size=batch_size)
        gathered = np.asarray(multihost_utils.process_allgather(padded))  # [count, longest share, K]
    return deal_back(gathered, total)


def deal_back(shares: NDArray[np.float32], total: int) -> NDArray[np.float32]:
    """Rows [N, ...] in their own order, from the shares [count, longest, ...] that were dealt out in turn.

    >>> deal_back(np.array([[0, 2, 4], [1, 3, 0]]), 5).tolist()
    [0, 1, 2, 3, 4]
    """
    return np.asarray(np.swapaxes(shares, 0, 1).reshape(-1, *shares.shape[2:])[:total])
