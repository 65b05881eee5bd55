"""A training in pieces: from where it begins, up to where a frozen body thaws, up to its end."""

from __future__ import annotations

import itertools
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Position:
    """How far a training has come: whole epochs, and batches of the epoch that has begun."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Segment:
    """Epochs `first` to `last` (exclusive) in one go, `skip` batches of the first one done already."""

    first: int
    last: int
    skip: int = 0


def plan_segments(start: Position, *, epochs: int, thaw: int = 0) -> list[Segment]:
    """What is left to train.

    An epoch that was broken off is a piece of its own, since it is shorter; so are the epochs before the
    thaw, since the network is compiled anew after them.

    Args:
        start: where the training goes on.
        epochs: of the whole training.
        thaw: the first epoch that trains the whole network.

    >>> plan_segments(Position(1, 5), epochs=8, thaw=4)
    [Segment(first=1, last=2, skip=5), Segment(first=2, last=4, skip=0), Segment(first=4, last=8, skip=0)]
    """
    edges = {start.epoch, min(max(thaw, start.epoch), epochs), epochs}
    if start.step:
        edges.add(start.epoch + 1)
    cuts = sorted(edge for edge in edges if start.epoch <= edge <= epochs)
    return [
        Segment(first, last, start.step if first == start.epoch else 0)
        for first, last in itertools.pairwise(cuts)
    ]
