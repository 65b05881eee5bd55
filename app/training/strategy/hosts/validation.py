"""Validation volumes scored by several processes, each of which reads its share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.data.cohort import Cohort
from voxlift.app.inference.scores import build_validation_scorer, predict_logits
from voxlift.app.training.networks import Networks
from voxlift.app.training.strategy.hosts.data_parallel import broadcast_values, copy_weights, single_process
from voxlift.app.training.strategy.hosts.rendezvous import own_index, process_count
from voxlift.data_pipelines.cache.format import PreparedVolumes


def build_shared_scorer(
    networks: Networks, cohort: Cohort, *, batch_size: int
) -> Callable[[], dict[str, float]]:
    """A function that scores the validation volumes, of which each process reads its share.

    The figures are equal to the last bit in all processes: whether a training stops early hangs on them.
    """
    score = build_validation_scorer(networks.volume, cohort, batch_size=batch_size, predict=shared_logits)

    def together() -> dict[str, float]:
        copy_weights(networks)
        return broadcast_values(score())

    return together


def shared_logits(network: Any, volumes: PreparedVolumes, *, batch_size: int) -> NDArray[np.float32]:  # noqa: ANN401 - untyped Keras
    """Logits [N, K] of prepared volumes, in order; every process computes some and gets all."""
    from jax.experimental import multihost_utils

    index, count, total = own_index(), process_count(), len(volumes)
    own = replace(volumes, files=volumes.files[index::count])
    padded = np.zeros((-(-total // count), int(network.output_shape[-1])), np.float32)
    with single_process():
        if len(own):
            padded[: len(own)] = predict_logits(network, own, batch_size=batch_size)
        gathered = np.asarray(multihost_utils.process_allgather(padded))  # [count, longest share, K]
    return interleave(gathered, total)


def interleave(shares: NDArray[np.float32], total: int) -> NDArray[np.float32]:
    """Rows [N, ...] in their own order, from the shares [count, longest, ...] that were dealt out in turn.

    >>> interleave(np.array([[0, 2, 4], [1, 3, 0]]), 5).tolist()
    [0, 1, 2, 3, 4]
    """
    return np.asarray(np.swapaxes(shares, 0, 1).reshape(-1, *shares.shape[2:])[:total])
