"""What training saw, in numbers, and what lies outside it: spacing, size, orientation, intensities.

A network answers for any array of the right shape, whether or not it has seen its like. So training leaves
the ranges of its volumes behind, and prediction compares each new volume with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from voxlift.data_pipelines.geometry import axcodes_of, ras_geometry
from voxlift.data_pipelines.volume import Array, Stored

SAMPLE = 100_000
"""So many voxels, evenly spread, are enough for percentiles."""
GEOMETRY_MARGIN = 0.1  # a tenth beyond the extremes of spacing and size is still like them
INTENSITY_MARGIN = 0.25  # of the range seen, and more where few volumes made it: see `_margin`
LEAST_MARGIN = 0.05  # of the contrast seen, where all volumes gave the same number
AXES = ("depth", "height", "width")
STATISTICS = {"p01": "1st percentile", "p50": "median", "p99": "99th percentile", "mean": "mean", "sd": "sd"}

Range = tuple[float, float]


@dataclass(frozen=True)
class VolumeSummary:
    """One record in the numbers that its ranges are made of.

    Attributes:
        spacing: mm of the first image in RAS, ordered (depth, height, width).
        shape: Its voxels in RAS, ordered (depth, height, width).
        axcodes: Where its stored axes point.
        channels: Per channel the statistics of the prepared voxels, those that the network sees.
    """

    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    axcodes: str
    channels: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class TrainingRange:
    """The extremes of a training set's sketches.

    Attributes:
        volumes: How many were seen.
        spacing: (low, high) in mm for depth, height, width.
        shape: (low, high) in voxels for depth, height, width.
        axcodes: How often each orientation was stored.
        channels: Per channel the (low, high) of each statistic.
    """

    volumes: int
    spacing: tuple[Range, ...]
    shape: tuple[Range, ...]
    axcodes: Mapping[str, int]
    channels: tuple[Mapping[str, Range], ...]


def summarize_volume(stored: Sequence[Stored], prepared: Array) -> VolumeSummary:
    """Return a record's sketch.

    Args:
        stored: Its images, see `read_record`.
        prepared: What became of them, `[depth, height, width, channels]`.
    """
    first = stored[0]
    shape, spacing = ras_geometry(first.voxels.shape, first.affine)
    return VolumeSummary(
        spacing=spacing,
        shape=shape,
        axcodes=axcodes_of(first.affine),
        channels=tuple(_statistics(prepared[..., channel]) for channel in range(prepared.shape[-1])),
    )


def find_training_range(sketches: Sequence[VolumeSummary]) -> TrainingRange:
    """Return the extremes of one sketch or more, all with the same channels."""
    return TrainingRange(
        volumes=len(sketches),
        spacing=tuple(_extremes([one.spacing[axis] for one in sketches]) for axis in range(3)),
        shape=tuple(_extremes([one.shape[axis] for one in sketches]) for axis in range(3)),
        axcodes=dict(Counter(one.axcodes for one in sketches).most_common()),
        channels=tuple(
            {name: _extremes([one.channels[channel][name] for one in sketches]) for name in STATISTICS}
            for channel in range(len(sketches[0].channels))
        ),
    )


def find_out_of_range(sketch: VolumeSummary, seen: TrainingRange) -> tuple[str, ...]:
    """Return what lies outside the ranges, a phrase each; empty where nothing does.

    Args:
        sketch: Of one record.
        seen: What training saw, with as many channels.
    """
    found = []
    for axis, name in enumerate(AXES):
        for what, value, (low, high) in (
            (
                f"spacing along {name} is {sketch.spacing[axis]:.3g} mm",
                sketch.spacing[axis],
                seen.spacing[axis],
            ),
            (f"{sketch.shape[axis]} voxels along {name}", sketch.shape[axis], seen.shape[axis]),
        ):
            if not low * (1 - GEOMETRY_MARGIN) <= value <= high * (1 + GEOMETRY_MARGIN):
                found.append(f"{what} (training {_spoken(low, high)})")
    if sketch.axcodes not in seen.axcodes:
        found.append(f"stored as {sketch.axcodes} (training {', '.join(seen.axcodes)})")
    many = len(seen.channels) > 1
    for index, (values, ranges) in enumerate(zip(sketch.channels, seen.channels, strict=True)):
        found += [
            f"{text} of channel {index}" if many else text
            for text in _odd_values(values, ranges, seen.volumes)
        ]
    return tuple(found)


def _odd_values(values: Mapping[str, float], ranges: Mapping[str, Range], volumes: int) -> list[str]:
    least = LEAST_MARGIN * abs(ranges["p99"][1] - ranges["p01"][0])
    found = []
    for name, words in STATISTICS.items():
        low, high = ranges[name]
        margin = max(_margin(volumes) * (high - low), least)
        if not low - margin <= values[name] <= high + margin:
            found.append(f"intensity {words} is {values[name]:.3g} (training {_spoken(low, high)})")
    return found


def _margin(volumes: int) -> float:
    """The share of a range that is allowed beyond it: chance exceeds the extremes of few volumes easily."""
    return INTENSITY_MARGIN + 2 / volumes


def _statistics(channel: Array) -> dict[str, float]:
    flat = channel.reshape(-1)
    sample = flat[:: max(1, flat.size // SAMPLE)].astype(np.float64)
    p01, p50, p99 = np.percentile(sample, [1, 50, 99])
    return {
        "p01": float(p01),
        "p50": float(p50),
        "p99": float(p99),
        "mean": float(sample.mean()),
        "sd": float(sample.std()),
    }


def _extremes(values: Sequence[float]) -> Range:
    return min(values), max(values)


def _spoken(low: float, high: float) -> str:
    first, last = f"{low:.3g}", f"{high:.3g}"
    return first if first == last else f"{first} to {last}"
