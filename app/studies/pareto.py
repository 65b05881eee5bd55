"""Which points no other point beats in both score and cost."""

from collections.abc import Sequence


def pareto_front(scores: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Return the positions of the points that no other beats, cheapest first.

    A point is beaten by one that scores at least as much and costs at most as much, and is better in one of
    the two; of equal points the first stays.

    >>> pareto_front([0.8, 0.9, 0.85, 0.9], [1, 4, 2, 5])
    [0, 2, 1]
    """
    order = sorted(range(len(scores)), key=lambda i: (costs[i], -scores[i], i))
    front: list[int] = []
    best = float("-inf")
    for index in order:
        if scores[index] > best:
            front.append(index)
            best = scores[index]
    return front
