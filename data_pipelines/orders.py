"""In which order an epoch visits the records: a function of seed and epoch, so that runs can resume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.balance import balanced_order


def epoch_orders(
    labels: NDArray[np.int64], *, epochs: int, seed: int, first_epoch: int = 0, balanced: bool = False
) -> NDArray[np.int64]:
    """Record indices for each epoch.

    Args:
        labels: [N] class indices.
        epochs: how many epochs there are in all.
        seed: of the whole run.
        first_epoch: epochs before this one are left out (a resumed run).
        balanced: draw every class equally often, rare ones repeatedly, instead of each record once.

    Returns:
        int64 [epochs - first_epoch, N].
    """
    draw = balanced_order if balanced else _plain_order
    rows = [draw(labels.tolist(), seed=seed, epoch=epoch) for epoch in range(first_epoch, epochs)]
    return np.stack(rows).astype(np.int64) if rows else np.empty((0, len(labels)), np.int64)


def least_examples(per_record: NDArray[np.int64], orders: NDArray[np.int64]) -> int:
    """How many examples every epoch has at least.

    Args:
        per_record: [N] examples that each record brings (1 volume, or so many slices).
        orders: [epochs, N] of the whole run, as `epoch_orders` gives them.

    >>> least_examples(np.array([3, 1]), np.array([[0, 1], [1, 1]]))
    2
    """
    return int(per_record[orders].sum(axis=1).min())


def _plain_order(labels: list[int], *, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(len(labels))
