"""In which order an epoch visits the records: a function of seed and epoch, so that runs can resume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    draw = _balanced_order if balanced else _plain_order
    rows = [draw(labels, np.random.default_rng([seed, epoch])) for epoch in range(first_epoch, epochs)]
    return np.stack(rows).astype(np.int64) if rows else np.empty((0, len(labels)), np.int64)


def _plain_order(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.permutation(len(labels))


def _balanced_order(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Classes in turn, each class running through its own shuffled records as often as needed."""
    classes = np.unique(labels)
    share = -(-len(labels) // len(classes))
    columns = [_repeated(np.flatnonzero(labels == label), share, rng) for label in classes]
    return rng.permutation(np.stack(columns, axis=1).ravel()[: len(labels)])


def _repeated(members: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    rounds = -(-count // len(members))
    return np.concatenate([rng.permutation(members) for _ in range(rounds)])[:count]
