"""Which architecture to take, in words that follow from the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from voxlift.app.report.formatting import format_interval, format_quantity, format_value
from voxlift.app.studies.architecture.points import BASE, Variant
from voxlift.app.studies.scoring import PointScore, Standing, pick_cheapest

UNITS = {
    "flops": ("operations per volume", ""),
    "parameters": ("parameters", ""),
    "seconds_per_volume": ("inference time", "s"),
    "train_seconds": ("training time", "s"),
    "peak_memory_bytes": ("peak memory", "B"),
}


P_ADJUSTED = (
    "Intervals are those of each difference alone; p is adjusted over all changes (Holm), and only where "
    "both agree is a change called better or worse."
)


def recommend(
    variants: Sequence[Variant], scores: Mapping[str, PointScore], best: Mapping[str, Standing], *, cost: str
) -> str:
    """The cheapest network that scores like the best.

    Args:
        variants: All of them.
        scores: Of those that have all their seeds.
        best: Every other one against the best.
        cost: The key of the cost that counts.
    """
    costs = {label: one.cost[cost] for label, one in scores.items()}
    chosen = next(v for v in variants if v.label == pick_cheapest(scores, best, costs))
    one, (name, unit) = scores[chosen.label], UNITS[cost]
    what = f"Take {' '.join(chosen.overrides)}" if chosen.changes else "Keep the base as it is"
    if chosen.factor == "model.init" and chosen.changes["model.init"] != "random":
        what += " on a trained slice model (model.baseline=SLICE_RUN)"
    told = [label for label, standing in best.items() if standing.is_worse]
    ground = (
        f"{len(told)} of the other {len(best)} are shown to score less than the best."
        if told
        else f"No two can be told apart by score on these subjects{_cheapest_of_all(costs, chosen.label)}."
    )
    return (
        f"{what}: validation AUC {format_value(one.auc)} {format_interval(one.low, one.high)} at "
        f"{format_quantity(float(one.cost[cost]), unit)} {name}, the cheapest within 0.01 of the best score. "
        f"{ground}"
    )


def _cheapest_of_all(costs: Mapping[str, float], chosen: str) -> str:
    """Where score tells nothing apart: that cost decides, or which network costs less than the one chosen."""
    cheapest = min(costs, key=costs.__getitem__)
    if costs[cheapest] == costs[chosen]:
        return ", so cost decides"
    return f": {cheapest}, at {costs[cheapest] / costs[chosen]:.2g} times its cost, may serve as well"


def explain_factors(
    variants: Sequence[Variant],
    scores: Mapping[str, PointScore],
    against_base: Mapping[str, Standing],
    *,
    cost: str,
) -> list[str]:
    """For each setting what its values did to score and cost, against the base."""
    if BASE not in scores:
        return ["The base has no result, so nothing can be set against it."]
    sentences = []
    for factor in dict.fromkeys(variant.factor for variant in variants if variant.factor):
        spoken = [
            _said(variant, scores[variant.label], against_base[variant.label], scores[BASE], cost)
            for variant in variants
            if variant.factor == factor and variant.label in scores
        ]
        if spoken:
            sentences.append(f"{factor}: {'; '.join(spoken)}.")
    return [*sentences, P_ADJUSTED] if sentences else []


def say_front(variants: Sequence[Variant], front: Sequence[str], scores: Mapping[str, PointScore]) -> str:
    """The networks that no other beats in score and cost, cheapest first."""
    names = {variant.label: variant.name for variant in variants}
    spoken = ", ".join(f"{names[label]} ({format_value(scores[label].auc)})" for label in front)
    return f"Pareto front, cheapest first: {spoken}."


def say_certainty(scores: Mapping[str, PointScore]) -> str:
    """What the number of seeds and subjects lets one know."""
    spreads = [one.spread for one in scores.values() if math.isfinite(one.spread)]
    if not spreads:
        return (
            "One seed: the spread over seeds, below which nothing can be told, is unknown; add study.seeds."
        )
    median = format_value(sorted(spreads)[len(spreads) // 2])
    return f"Over seeds the AUC spreads by {median} (standard deviation, median over networks)."


def _said(variant: Variant, one: PointScore, standing: Standing, base: PointScore, cost: str) -> str:
    sign = "+" if standing.difference > 0 else ""
    return (
        f"{variant.name.rpartition(' ')[2]} {sign}{format_value(standing.difference)} "
        f"{format_interval(standing.low, standing.high)} at {one.cost[cost] / base.cost[cost]:.2g} times the "
        f"cost ({standing.ground})"
    )


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
