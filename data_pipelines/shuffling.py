"""Two ways to meet rare classes: weigh their loss, or show them as often as the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def class_weights(labels: Sequence[int], *, classes: int | None = None) -> dict[int, float]:
    """Returns the loss weight of each class, the mean class size over its own; over rows their mean is 1.

    >>> class_weights([0, 0, 0, 1])
    {0: 0.6666666666666666, 1: 2.0}

    Args:
        labels: Class indices of the training records.
        classes: Number of classes; by default the highest label tells.

    Raises:
        ValueError: A class without a record, which no weight could make up for.
    """
    counts = _count(labels, classes)
    return {label: float(counts.mean() / count) for label, count in enumerate(counts)}


def balanced_order(labels: Sequence[int], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Returns record indices for one epoch in which every class is drawn equally often, to one record.

    The epoch keeps its length. A rare class is gone through in full, reshuffled, before any of its records
    comes again; of a frequent one each epoch shows another random part. Equal seed and epoch give the equal
    order.

    Args:
        labels: Class indices of the training records.
        seed: Of the run.
        epoch: From 0; each has an order of its own.

    Raises:
        ValueError: A class without a record.
    """
    counts = _count(labels, None)
    rng = np.random.default_rng((seed, epoch))
    # The classes that get the odd records change from epoch to epoch.
    shares = np.full(len(counts), len(labels) // len(counts))
    shares[rng.permutation(len(counts))[: len(labels) % len(counts)]] += 1
    drawn = [
        _draw(np.flatnonzero(np.asarray(labels) == label), int(share), rng)
        for label, share in enumerate(shares)
    ]
    return rng.permutation(np.concatenate(drawn)).astype(np.int64)


def _draw(members: NDArray[np.intp], share: int, rng: np.random.Generator) -> NDArray[np.intp]:
    rounds = -(-share // len(members))
    return np.concatenate([members[:0], *(rng.permutation(members) for _ in range(rounds))])[:share]


def _count(labels: Sequence[int], classes: int | None) -> NDArray[np.intp]:
    counts = np.bincount(np.asarray(labels, np.int64), minlength=classes or 1)
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        names = ", ".join(map(str, empty))
        raise ValueError(f"No training record is of class {names}: it cannot be balanced.")
    return counts


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
