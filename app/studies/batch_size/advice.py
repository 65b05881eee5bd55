"""Which batch size to take, in words that follow from the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from voxlift.app.report.formatting import format_quantity, format_value
from voxlift.app.studies.batch_size.memory import Largest, MemoryFound
from voxlift.app.studies.batch_size.points import BatchFindings, BatchPoint, say_portions
from voxlift.app.studies.scoring import PointScore, Standing, pick_cheapest

WORDS = {
    "none": "the same learning rate",
    "sqrt": "the learning rate grown with the root",
    "linear": "grown with it",
}
VAGUE = 30  # times: an interval as wide as that gives no advice


def fitting_points(points: Sequence[BatchPoint], largest: Largest) -> list[BatchPoint]:
    """The points trained for equal epochs whose batch the memory holds; all of them where it holds none."""
    candidates = [point for point in points if point.equal != "steps"]
    return [point for point in candidates if largest.may_fit(point.batch_size)] or candidates


def choose_point(
    points: Sequence[BatchPoint],
    outcomes: Mapping[str, PointScore],
    standings: Mapping[str, Standing],
    steps: Mapping[int, Mapping[str, Any]],
) -> BatchPoint:
    """The fastest of the points that score like the best of them.

    Args:
        points: That may be recommended.
        outcomes: Of those that have all their seeds.
        standings: Of every other one of them against the best.
        steps: The measured steps of each batch size.
    """
    by_label = {point.label: point for point in points if point.label in outcomes}
    speed = {
        label: -float(steps[point.batch_size]["volumes_per_second"]) for label, point in by_label.items()
    }
    return by_label[pick_cheapest({label: outcomes[label] for label in by_label}, standings, speed)]


def recommend(
    chosen: BatchPoint,
    outcomes: Mapping[str, PointScore],
    steps: Mapping[int, Mapping[str, Any]],
    *,
    is_told: bool,
) -> str:
    """The recommendation: a batch size and learning rate, with its score, its speed and its ground."""
    one, speed = outcomes[chosen.label], steps[chosen.batch_size]["volumes_per_second"]
    ground = (
        "It is the fastest of those within 0.01 of the best score."
        if is_told
        else "These subjects and seeds cannot tell the batch sizes apart by score; of those within 0.01 of "
        "the best it is the fastest."
    )
    return (
        f"Take trainer.batch_size={chosen.batch_size} with "
        f"optimizer.learning_rate={chosen.learning_rate:.3g}: validation AUC {format_value(one.auc)} "
        f"[{format_value(one.low)}, {format_value(one.high)}] at {speed:.3g} volumes/s. {ground}"
    )


def explain_findings(
    found: BatchFindings,
    outcomes: Mapping[str, PointScore],
    standings: Mapping[str, Standing],
    *,
    reference: BatchPoint,
) -> list[str]:
    """What the recommendation rests on, a sentence for each question of the study.

    Args:
        found: What was measured.
        outcomes: The scores of all points.
        standings: Of every other point against the reference.
        reference: The point with the batch size that the settings name.
    """
    return [
        _say_speed(found.steps),
        _say_scores(found.points, standings, reference.label),
        *_say_spread(outcomes),
        _say_stability(found.steps),
        *_say_noise(found.noise),
        *say_portions(found.portioned, found.steps[max(found.steps)]),
        _say_memory(found.memory, reference.batch_size),
    ]


def _say_speed(steps: Mapping[int, Mapping[str, Any]]) -> str:
    speeds = {size: float(one["volumes_per_second"]) for size, one in steps.items()}
    fastest, slowest = max(speeds, key=speeds.__getitem__), min(speeds, key=speeds.__getitem__)
    if speeds[fastest] < 1.1 * speeds[slowest]:
        both = f"{speeds[slowest]:.3g} to {speeds[fastest]:.3g} volumes/s"
        return f"Speed hardly depends on the batch size: {both}."
    return (
        f"A batch of {fastest} is fastest with {speeds[fastest]:.3g} volumes/s, "
        f"{speeds[fastest] / speeds[slowest]:.2f} times a batch of {slowest}."
    )


def _say_scores(points: Sequence[BatchPoint], standings: Mapping[str, Standing], reference: str) -> str:
    by_label = {point.label: point for point in points}
    worse = [_named(by_label[label], one) for label, one in standings.items() if one.is_worse]
    better = [_named(by_label[label], one) for label, one in standings.items() if one.is_better]
    if not worse and not better:
        reach = max((max(abs(one.low), abs(one.high)) for one in standings.values()), default=math.nan)
        return (
            f"No batch size, learning rate or length of training can be told apart from {reference} by "
            f"validation AUC; differences up to {format_value(reach)} remain possible."
        )
    parts = [f"better than {reference}: {'; '.join(better)}"] if better else []
    parts += [f"worse than {reference}: {'; '.join(worse)}"] if worse else []
    return f"By validation AUC, {', and '.join(parts)}. The others cannot be told apart from it."


def _named(point: BatchPoint, standing: Standing) -> str:
    sign = "+" if standing.difference > 0 else ""
    return (
        f"{point.batch_size} at equal {point.equal} with {WORDS[point.scaling]} "
        f"({sign}{format_value(standing.difference)})"
    )


def _say_spread(outcomes: Mapping[str, PointScore]) -> list[str]:
    spreads = {label: one.spread for label, one in outcomes.items() if math.isfinite(one.spread)}
    if not spreads:
        return ["One seed: the spread over seeds is not known. study.seeds=[0,1,2] would show it."]
    widest = max(spreads, key=spreads.__getitem__)
    return [
        (
            f"Over seeds the AUC spreads by up to {format_value(spreads[widest])} (standard deviation, "
            f"{widest}); the median point by {format_value(sorted(spreads.values())[len(spreads) // 2])}."
        )
    ]


def _say_stability(steps: Mapping[int, Mapping[str, Any]]) -> str:
    sizes = sorted(steps)
    first, last = (float(steps[size]["step_noise"]) for size in (sizes[0], sizes[-1]))
    expected = math.sqrt(sizes[-1] / sizes[0])
    return (
        f"From step to step the loss varies by {format_value(first)} at a batch of {sizes[0]} and by "
        f"{format_value(last)} at {sizes[-1]}, {first / last if last else math.inf:.2g} times less "
        f"(independent examples would make it {expected:.2g} times)."
    )


def _say_noise(noise: Mapping[str, Any]) -> list[str]:
    if not noise:
        return []
    found = noise["trained"]
    if not math.isfinite(found["scale"]):
        return ["After training the mean gradient is lost in noise: the noise scale has no upper bound here."]
    high = f"{found['high']:.3g}" if math.isfinite(found["high"]) else "infinity"
    if found["high"] > VAGUE * found["low"]:
        return [
            (
                "The gradient noise scale after training is not known from so few batches: "
                f"[{found['low']:.3g}, {high}] examples. A larger study.noise_batches narrows it."
            )
        ]
    before = f"{noise['start']['scale']:.3g}"
    scale = f"{found['scale']:.3g} examples after training [{found['low']:.3g}, {high}] and {before} before"
    advice = "batches well below it use every example well, batches well above it waste most of them"
    return [f"The gradient noise scale is about {scale}: {advice}."]


def _say_memory(memory: MemoryFound, reference_size: int) -> str:
    found = memory.largest
    limit = memory.limit_name
    if memory.limit_bytes is not None:
        limit = f"{format_quantity(float(memory.limit_bytes), 'B')} ({memory.limit_name})"
    slope = (
        ""
        if not memory.bytes_per_volume > 0
        else f", about {format_quantity(memory.bytes_per_volume, 'B')} a volume"
    )
    if memory.problem:
        return _say_broken(memory, limit)
    if found.fails is None:
        return f"Within {limit} a batch of {found.fits} fits, the largest that was tried{slope}."
    if found.fits == 0:
        return f"Within {limit} not even one volume fits: use smaller volumes or filters, or float16."
    portion = min(reference_size, found.fits)
    return (
        f"Within {limit} a batch of {found.fits} fits and one of {found.fails} does not{slope}. A larger one "
        f"is had by gradient accumulation: trainer.batch_size={portion} trainer.accumulate="
        f"{max(2, math.ceil(2 * found.fits / portion))} takes steps of at least twice that size in about the "
        f"memory of {portion}."
    )


def _say_broken(memory: MemoryFound, limit: str) -> str:
    """How far a search came that ended for another reason than memory."""
    found = memory.largest
    known = [f"a batch of {found.fits} fits"] if found.fits else []
    known += [f"one of {found.fails} does not"] if found.fails else []
    return (
        f"The largest batch is not known: the search within {limit} ended at a batch of {found.unanswered} "
        f"for another reason than memory ({memory.problem.rstrip('.')}). "
        f"{' and '.join(known).capitalize() or 'No other was tried'}."
    )
