"""Recommend an architecture, and describe the evidence, from the numbers in the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from voxlift.app.report.tables import format_interval, format_quantity, format_signed, format_value
from voxlift.app.studies.architecture.points import BASE, COSTS, Variant
from voxlift.app.studies.trainings import PointDifference, PointScore, choose_cheapest, name_metric

NOTE_ADJUSTED = (
    "Intervals are those of each difference alone; p is adjusted over all changes (Holm). A change is called "
    "better or worse only if both agree."
)


def recommend(
    variants: Sequence[Variant],
    points: Mapping[str, PointScore],
    differences: Mapping[str, PointDifference],
    *,
    cost: str,
) -> str:
    """Return the recommendation: the cheapest network that scores like the best.

    Args:
        variants: All variants.
        points: Scores of those with all their seeds.
        differences: Differences of every other one from the best.
        cost: Key of the cost that counts.
    """
    costs = {label: one.cost[cost] for label, one in points.items()}
    label = choose_cheapest(points, differences, costs)
    chosen = next(variant for variant in variants if variant.label == label)
    one, (name, unit) = points[label], COSTS[cost]
    action = f"Take {' '.join(chosen.overrides)}" if chosen.changes else "Keep the base"
    if chosen.factor == "model.init" and chosen.changes["model.init"] != "random":
        action += " on a trained slice model (model.baseline=SLICE_RUN)"
    worse = sum(difference.is_worse for difference in differences.values())
    reason = (
        f"{worse} of the other {len(differences)} are shown to score worse than the best."
        if worse
        else f"No other is shown to score worse on these subjects{_describe_cheapest(costs, label)}."
    )
    return (
        f"{action}: validation {one.metric_name} {format_value(one.score)} "
        f"{format_interval(one.low, one.high)} at {format_quantity(float(one.cost[cost]), unit)} {name}, the "
        f"cheapest within {one.tolerance:.2g} of the best score. {reason}"
    )


def _describe_cheapest(costs: Mapping[str, float], chosen: str) -> str:
    """Return whether the chosen network is the cheapest of all, or which one is cheaper."""
    cheapest = min(costs, key=costs.__getitem__)
    if costs[cheapest] == costs[chosen]:
        return ", so cost decides"
    return f": {cheapest}, at {costs[cheapest] / costs[chosen]:.2g} times its cost, may serve as well"


def describe_factors(
    variants: Sequence[Variant],
    points: Mapping[str, PointScore],
    from_base: Mapping[str, PointDifference],
    *,
    cost: str,
) -> list[str]:
    """Return a sentence per setting: the effect of its values on score and cost, relative to the base.

    Args:
        variants: All variants.
        points: Scores of those with all their seeds.
        from_base: Differences from the base.
        cost: Key of the cost that counts.
    """
    if BASE not in points:
        return ["The base has no result, so that no variant can be compared with it."]
    sentences = []
    for factor in dict.fromkeys(variant.factor for variant in variants if variant.factor):
        effects = []
        for variant in variants:
            if variant.factor == factor and (one := points.get(variant.label)):
                difference, ratio = from_base[variant.label], one.cost[cost] / points[BASE].cost[cost]
                effects.append(
                    f"{variant.name.rpartition(' ')[2]} {format_signed(difference.difference)} "
                    f"{format_interval(difference.low, difference.high)} at {ratio:.2g} times the cost "
                    f"({difference.explanation})"
                )
        if effects:
            sentences.append(f"{factor}: {'; '.join(effects)}.")
    return [*sentences, NOTE_ADJUSTED] if sentences else []


def describe_front(
    variants: Sequence[Variant], front: Sequence[str], points: Mapping[str, PointScore]
) -> str:
    """Return the networks on the Pareto front, cheapest first."""
    names = {variant.label: variant.name for variant in variants}
    listed = ", ".join(f"{names[label]} ({format_value(points[label].score)})" for label in front)
    return f"Pareto front, cheapest first: {listed}."


def describe_spread(points: Mapping[str, PointScore]) -> str:
    """Return how much the score varies over seeds."""
    spreads = [one.seed_sd for one in points.values() if math.isfinite(one.seed_sd)]
    if not spreads:
        return "One seed: the variation over seeds is unknown; add study.seeds."
    median = format_value(sorted(spreads)[len(spreads) // 2])
    return f"Standard deviation of the {name_metric(points)} over seeds: {median} (median over networks)."


def describe_duplicates(variants: Sequence[Variant], duplicates: Mapping[str, Variant]) -> list[str]:
    """Return which variants were not trained because they are the same network as another one."""
    names = {variant.label: variant.name for variant in variants}
    pairs = [f"{names[label]} is {other.name}" for label, other in duplicates.items()]
    return [f"Not trained twice, because they are the same network: {', '.join(pairs)}."] if pairs else []


def pareto_front(scores: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Return the positions of the points that no other point dominates, cheapest first.

    A point is dominated by one that scores at least as much and costs at most as much, and is better in one
    of the two; of equal points the first stays.

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
