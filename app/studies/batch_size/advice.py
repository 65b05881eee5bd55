"""Recommend a batch size, and describe the evidence, from the numbers in the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from voxlift.app.report.tables import format_quantity, format_signed, format_value
from voxlift.app.studies.batch_size.points import (
    AccumulatedBatch,
    BatchFindings,
    BatchPoint,
    MemorySearch,
    SearchResult,
)
from voxlift.app.studies.trainings import PointDifference, PointScore, choose_cheapest, name_metric

RULES = {
    "none": "the same learning rate",
    "sqrt": "the learning rate scaled by the root",
    "linear": "the learning rate scaled in proportion",
}
VAGUE = 30  # ratio of the ends of an interval that is too wide for advice


def select_fitting(points: Sequence[BatchPoint], largest: SearchResult) -> list[BatchPoint]:
    """Return the points with equal epochs whose batch fits into memory; all of them where none fits."""
    candidates = [point for point in points if point.equal != "steps"]
    return [point for point in candidates if largest.may_fit(point.batch_size)] or candidates


def choose_point(
    points: Sequence[BatchPoint],
    scores: Mapping[str, PointScore],
    differences: Mapping[str, PointDifference],
    steps: Mapping[int, Mapping[str, Any]],
) -> BatchPoint:
    """Return the fastest of the points that score like the best of them.

    Args:
        points: Points to choose from.
        scores: Scores of those with all their seeds.
        differences: Differences of the others from the best of them.
        steps: Measured steps by batch size.
    """
    by_label = {point.label: point for point in points if point.label in scores}
    cost = {label: -float(steps[point.batch_size]["volumes_per_second"]) for label, point in by_label.items()}
    return by_label[choose_cheapest({label: scores[label] for label in by_label}, differences, cost)]


def recommend(
    chosen: BatchPoint,
    scores: Mapping[str, PointScore],
    steps: Mapping[int, Mapping[str, Any]],
    *,
    has_worse: bool,
) -> str:
    """Return the recommendation: a batch size and learning rate, with score, speed and reason.

    Args:
        chosen: Recommended point.
        scores: Scores of all points.
        steps: Measured steps by batch size.
        has_worse: Whether a point is shown to score less than the best.
    """
    one, speed = scores[chosen.label], steps[chosen.batch_size]["volumes_per_second"]
    reason = (
        f"It is the fastest of those within {one.tolerance:.2g} of the best score."
        if has_worse
        else "No batch size is shown to be better or worse in score on these subjects and seeds; it is the "
        f"fastest of those within {one.tolerance:.2g} of the best score."
    )
    return (
        f"Take trainer.batch_size={chosen.batch_size} with "
        f"optimizer.learning_rate={chosen.learning_rate:.3g}: validation {one.metric_name} "
        f"{format_value(one.score)} [{format_value(one.low)}, {format_value(one.high)}] at {speed:.3g} "
        f"volumes/s. {reason}"
    )


def describe_findings(
    found: BatchFindings,
    scores: Mapping[str, PointScore],
    differences: Mapping[str, PointDifference],
    *,
    reference: BatchPoint,
) -> list[str]:
    """Return the evidence for the recommendation, a sentence for each question of the study.

    Args:
        found: Measurements.
        scores: Scores of all points.
        differences: Differences of every other point from the reference.
        reference: Point with the batch size of the settings.
    """
    return [
        _describe_speed(found.steps),
        _describe_scores(found.points, differences, reference.label, metric=name_metric(scores)),
        _describe_spread(scores),
        _describe_stability(found.steps),
        *_describe_noise(found.noise),
        *_describe_accumulation(found.accumulated, found.steps[max(found.steps)]),
        _describe_memory(found.memory, reference.batch_size),
    ]


def _describe_speed(steps: Mapping[int, Mapping[str, Any]]) -> str:
    speeds = {size: float(one["volumes_per_second"]) for size, one in steps.items()}
    fastest, slowest = max(speeds, key=speeds.__getitem__), min(speeds, key=speeds.__getitem__)
    if speeds[fastest] < 1.1 * speeds[slowest]:
        both = f"{speeds[slowest]:.3g} to {speeds[fastest]:.3g} volumes/s"
        return f"Speed hardly depends on the batch size: {both}."
    return (
        f"A batch of {fastest} is fastest with {speeds[fastest]:.3g} volumes/s, "
        f"{speeds[fastest] / speeds[slowest]:.2f} times as fast as a batch of {slowest}."
    )


def _describe_scores(
    points: Sequence[BatchPoint],
    differences: Mapping[str, PointDifference],
    reference: str,
    *,
    metric: str,
) -> str:
    by_label = {point.label: point for point in points}
    worse = [_describe_point(by_label[label], one) for label, one in differences.items() if one.is_worse]
    better = [_describe_point(by_label[label], one) for label, one in differences.items() if one.is_better]
    if not worse and not better:
        reach = max((max(abs(one.low), abs(one.high)) for one in differences.values()), default=math.nan)
        return (
            f"No batch size, learning rate or length of training is shown to be better or worse than "
            f"{reference} in validation {metric}; differences up to {format_value(reach)} remain possible."
        )
    parts = [f"better than {reference}: {'; '.join(better)}"] if better else []
    parts += [f"worse than {reference}: {'; '.join(worse)}"] if worse else []
    rest = "The others are equivalent, or the data cannot tell."
    return f"By validation {metric}, {', and '.join(parts)}. {rest}"


def _describe_point(point: BatchPoint, difference: PointDifference) -> str:
    return (
        f"{point.batch_size} with equal {point.equal} and {RULES[point.scaling]} "
        f"({format_signed(difference.difference)}{difference.verdict.remark})"
    )


def _describe_spread(scores: Mapping[str, PointScore]) -> str:
    spreads = {label: one.seed_sd for label, one in scores.items() if math.isfinite(one.seed_sd)}
    if not spreads:
        return "One seed: the variation over seeds is unknown; set for example study.seeds=[0,1,2]."
    widest = max(spreads, key=spreads.__getitem__)
    median = sorted(spreads.values())[len(spreads) // 2]
    return (
        f"Standard deviation of the {name_metric(scores)} over seeds: at most "
        f"{format_value(spreads[widest])} ({widest}), {format_value(median)} for the median point."
    )


def _describe_stability(steps: Mapping[int, Mapping[str, Any]]) -> str:
    sizes = sorted(steps)
    first, last = (float(steps[size]["step_noise"]) for size in (sizes[0], sizes[-1]))
    expected = math.sqrt(sizes[-1] / sizes[0])
    return (
        f"Standard deviation of the loss between steps: {format_value(first)} at a batch of {sizes[0]} and "
        f"{format_value(last)} at {sizes[-1]}, {first / last if last else math.inf:.2g} times less "
        f"({expected:.2g} times is expected for independent examples)."
    )


def _describe_noise(noise: Mapping[str, Any]) -> list[str]:
    if not noise:
        return []
    found = noise["trained"]
    if not math.isfinite(found["scale"]):
        return ["After training the mean gradient is close to 0: the noise scale has no upper bound."]
    high = f"{found['high']:.3g}" if math.isfinite(found["high"]) else "infinity"
    interval = f"[{found['low']:.3g}, {high}]"
    if found["high"] > VAGUE * found["low"]:
        return [
            (
                "The gradient noise scale after training is uncertain with so few batches: "
                f"{interval} examples. A larger study.noise_batches narrows it."
            )
        ]
    return [
        (
            f"The gradient noise scale is about {found['scale']:.3g} examples after training {interval} and "
            f"{noise['start']['scale']:.3g} before: batches well below it use every example well, batches "
            "well above it waste most of them."
        )
    ]


def _describe_accumulation(accumulated: AccumulatedBatch | None, plain: Mapping[str, Any]) -> list[str]:
    """Return what accumulation saves and costs, beside the measurement of the same batch without it."""
    if accumulated is None:
        return []
    one = accumulated.answer
    peak, whole = float(one["peak_memory_bytes"]), float(plain["peak_memory_bytes"])
    speed = float(one["volumes_per_second"]) / float(plain["volumes_per_second"])
    return [
        (
            f"Gradient accumulation: a step of {accumulated.name} volumes ({accumulated.overrides}) peaks at "
            f"{format_quantity(peak, 'B')} instead of {format_quantity(whole, 'B')} and runs at {speed:.2f} "
            "times the speed; batch normalization then uses the statistics of each microbatch."
        )
    ]


def _describe_memory(memory: MemorySearch, reference_size: int) -> str:
    found = memory.largest
    limit = memory.limit_name
    if memory.limit_bytes is not None:
        limit = f"{format_quantity(float(memory.limit_bytes), 'B')} ({memory.limit_name})"
    slope = (
        f", about {format_quantity(memory.bytes_per_volume, 'B')} per volume"
        if memory.bytes_per_volume > 0
        else ""
    )
    if memory.problem:
        return _describe_aborted_search(memory, limit)
    if found.fails is None:
        return f"Within {limit} a batch of {found.fits} fits, the largest that was tried{slope}."
    if found.fits == 0:
        return f"Within {limit} not even one volume fits: use smaller volumes, fewer filters or float16."
    size = min(reference_size, found.fits)
    count = max(2, math.ceil(2 * found.fits / size))
    return (
        f"Within {limit} a batch of {found.fits} fits and one of {found.fails} does not{slope}. For a larger "
        f"batch accumulate gradients: trainer.batch_size={size} trainer.accumulate={count} takes steps of at "
        f"least twice that size in about the memory of {size}."
    )


def _describe_aborted_search(memory: MemorySearch, limit: str) -> str:
    """Return how far a search came that ended for another reason than memory."""
    found = memory.largest
    known = [f"a batch of {found.fits} fits"] if found.fits else []
    known += [f"one of {found.fails} does not"] if found.fails else []
    return (
        f"The largest batch is unknown: the search within {limit} ended at a batch of {found.unanswered} "
        f"for another reason than memory ({memory.problem.rstrip('.')}). "
        f"{' and '.join(known).capitalize() or 'No other was tried'}."
    )
