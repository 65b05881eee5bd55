"""Divide subjects with several labels each into parts in which every label keeps its share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stratify_iteratively(
    marks: NDArray[np.bool_], shares: Sequence[float], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the part [S] of each subject, so that every label is in every part as far as there are enough.

    The label with the fewest subjects left is distributed first, each of its subjects to the part that lacks
    most of it; of equal parts to the one that lacks most subjects, then at random. Other than in the source,
    a part with a share above 0 wants at least one subject of each label, at the cost of the largest part.

    Args:
        marks: [S, L] whether a subject has a label; a subject may have none.
        shares: Of the subjects, for each part; they sum to 1.
        rng: Orders the subjects, and decides between equal parts.

    Source: Sechidis, Tsoumakas and Vlahavas (2011), On the stratification of multi-label data,
    doi:10.1007/978-3-642-23808-6_10.
    """
    parts = np.full(len(marks), -1, np.int64)
    counts = marks.sum(axis=0).astype(np.float64)
    wanted = np.stack([_wanted_counts(count, shares) for count in counts], axis=1).reshape(len(shares), -1)
    room = np.asarray(shares) * len(marks)  # [P]
    order = rng.permutation(len(marks))
    while (parts < 0).any():
        left = order[parts[order] < 0]
        per_label = marks[left].sum(axis=0)
        labels = np.flatnonzero(per_label)
        label = int(labels[per_label[labels].argmin()]) if len(labels) else None
        for row in left if label is None else left[marks[left, label]]:
            part = _choose_part(room if label is None else wanted[:, label], room, shares, rng)
            parts[row] = part
            wanted[part, marks[row]] -= 1
            room[part] -= 1
    return parts


def _wanted_counts(count: float, shares: Sequence[float]) -> NDArray[np.float64]:
    """Return how many subjects of a label each part wants [P]: its share, at least one of a share above 0.

    >>> _wanted_counts(4, (0.8, 0.1, 0.1)).tolist()
    [2.0, 1.0, 1.0]
    """
    fractions = np.asarray(shares, np.float64)
    wanted = np.where(fractions > 0, np.maximum(count * fractions, 1.0), 0.0)
    largest = int(fractions.argmax())
    wanted[largest] = max(1.0, count - (wanted.sum() - wanted[largest]))
    return wanted


def _choose_part(
    wanted: NDArray[np.float64], room: NDArray[np.float64], shares: Sequence[float], rng: np.random.Generator
) -> int:
    """Return the part that lacks most of a label, then most subjects, then any; none with the share 0."""
    open_parts = np.flatnonzero(np.asarray(shares) > 0)
    most = open_parts[wanted[open_parts] >= wanted[open_parts].max() - 1e-9]
    most = most[room[most] >= room[most].max() - 1e-9]
    return int(rng.choice(most))
