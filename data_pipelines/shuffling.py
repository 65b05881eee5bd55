"""Decide the order of training records in each epoch, and balance rare classes by order or by loss weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def epoch_orders(
    labels: NDArray[np.int64], *, epochs: int, seed: int, first_epoch: int = 0, balanced: bool = False
) -> NDArray[np.int64]:
    """Return the record indices of each epoch, in order.

    Args:
        labels: [N] class indices.
        epochs: Number of epochs of the whole run.
        seed: Of the whole run.
        first_epoch: Number of epochs that are left out at the beginning (a resumed run).
        balanced: Draw every class equally often, rare ones repeatedly, instead of each record once.

    Returns:
        int64 [epochs - first_epoch, N].
    """
    draw = balanced_order if balanced else _shuffled_order
    rows = [draw(labels.tolist(), seed=seed, epoch=epoch) for epoch in range(first_epoch, epochs)]
    return np.stack(rows).astype(np.int64) if rows else np.empty((0, len(labels)), np.int64)


def balanced_order(labels: Sequence[int], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return record indices for one epoch in which all classes are drawn equally often, up to one record.

    The epoch keeps its length. All records of a rare class are drawn, in a new order, before any of them is
    drawn again; of a frequent class each epoch has another random part. The same seed and epoch give the same
    order.

    Args:
        labels: Class indices of the training records.
        seed: Of the run.
        epoch: From 0; each has an order of its own.

    Raises:
        ValueError: A class has no record.
    """
    counts = _count_labels(labels, None)
    rng = np.random.default_rng((seed, epoch))
    # The classes that get the remaining records change from epoch to epoch.
    shares = np.full(len(counts), len(labels) // len(counts))
    shares[rng.permutation(len(counts))[: len(labels) % len(counts)]] += 1
    drawn = [
        _draw_records(np.flatnonzero(np.asarray(labels) == label), int(share), rng)
        for label, share in enumerate(shares)
    ]
    return rng.permutation(np.concatenate(drawn)).astype(np.int64)


def class_weights(labels: Sequence[int], *, classes: int | None = None) -> dict[int, float]:
    """Return each class's loss weight: the mean class size divided by its own; over records their mean is 1.

    >>> class_weights([0, 0, 0, 1])
    {0: 0.6666666666666666, 1: 2.0}

    Args:
        labels: Class indices of the training records.
        classes: Number of classes; by default from the highest label.

    Raises:
        ValueError: A class has no record, so that no weight can balance it.
    """
    counts = _count_labels(labels, classes)
    return {label: float(counts.mean() / count) for label, count in enumerate(counts)}


def _shuffled_order(labels: list[int], *, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(len(labels))


def _draw_records(records: NDArray[np.intp], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    rounds = -(-count // len(records))
    return np.concatenate([records[:0], *(rng.permutation(records) for _ in range(rounds))])[:count]


def _count_labels(labels: Sequence[int], classes: int | None) -> NDArray[np.intp]:
    counts = np.bincount(np.asarray(labels, np.int64), minlength=classes or 1)
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        names = ", ".join(map(str, empty))
        raise ValueError(f"No training record is of class {names}, so classes cannot be balanced.")
    return counts
