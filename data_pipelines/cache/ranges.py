"""Input ranges: summarize volumes, find the ranges of the training set, and compare new volumes with them.

A network gives an output for any array of the right shape, however unlike its training data. Training
therefore saves the ranges of its volumes, and prediction compares each new volume with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from voxlift.data_pipelines.geometry import axcodes_of, ras_geometry
from voxlift.data_pipelines.volume import Array, Stored

MAX_SAMPLES = 100_000
"""So many voxels, evenly spread, are enough for percentiles."""
GEOMETRY_MARGIN = 0.1  # allowed beyond the extremes of spacing and size, as a part of them
INTENSITY_MARGIN = 0.25  # of the training range, and more for few volumes: see `_intensity_margin`
MIN_INTENSITY_MARGIN = 0.05  # of the training contrast, where all volumes gave nearly the same number
AXES = ("depth", "height", "width")
STATISTICS = {"p01": "1st percentile", "p50": "median", "p99": "99th percentile", "mean": "mean", "sd": "sd"}

Range = tuple[float, float]


@dataclass(frozen=True)
class VolumeSummary:
    """Geometry and intensity statistics of one record.

    Attributes:
        spacing: mm of the first image in RAS, ordered (depth, height, width).
        shape: Its voxels in RAS, ordered (depth, height, width).
        axcodes: World directions of its stored axes.
        channels: Per channel the statistics (`STATISTICS`) of the prepared voxels, which the network sees.
    """

    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    axcodes: str
    channels: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class TrainingRange:
    """The ranges of a training set.

    Attributes:
        volumes: How many there are.
        spacing: (low, high) in mm for depth, height, width.
        shape: (low, high) in voxels for depth, height, width.
        axcodes: Number of volumes per stored orientation.
        channels: Per channel the (low, high) of each statistic.
    """

    volumes: int
    spacing: tuple[Range, ...]
    shape: tuple[Range, ...]
    axcodes: Mapping[str, int]
    channels: tuple[Mapping[str, Range], ...]


def summarize_volume(stored: Sequence[Stored], prepared: Array) -> VolumeSummary:
    """Return a record's summary.

    Args:
        stored: Its images, see `read_record`.
        prepared: Its prepared voxels `[D, H, W, C]`.
    """
    first = stored[0]
    shape, spacing = ras_geometry(first.voxels.shape, first.affine)
    return VolumeSummary(
        spacing=spacing,
        shape=shape,
        axcodes=axcodes_of(first.affine),
        channels=tuple(_statistics(prepared[..., channel]) for channel in range(prepared.shape[-1])),
    )


def find_training_range(summaries: Sequence[VolumeSummary]) -> TrainingRange:
    """Return the ranges of one summary or more, all with the same channels."""
    return TrainingRange(
        volumes=len(summaries),
        spacing=tuple(_extremes([one.spacing[axis] for one in summaries]) for axis in range(3)),
        shape=tuple(_extremes([one.shape[axis] for one in summaries]) for axis in range(3)),
        axcodes=dict(Counter(one.axcodes for one in summaries).most_common()),
        channels=tuple(
            {name: _extremes([one.channels[channel][name] for one in summaries]) for name in STATISTICS}
            for channel in range(len(summaries[0].channels))
        ),
    )


def find_out_of_range(summary: VolumeSummary, training: TrainingRange) -> tuple[str, ...]:
    """Return what lies outside the training ranges, one phrase each; empty where nothing does.

    Args:
        summary: Of one record.
        training: The ranges of the training set, with as many channels.
    """
    found = _unusual_geometry(summary, training)
    if summary.axcodes not in training.axcodes:
        found.append(f"stored as {summary.axcodes} (training {', '.join(training.axcodes)})")
    for index, (values, ranges) in enumerate(zip(summary.channels, training.channels, strict=True)):
        channel = f" of channel {index}" if len(training.channels) > 1 else ""
        found += [phrase + channel for phrase in _unusual_intensities(values, ranges, training.volumes)]
    return tuple(found)


def _unusual_geometry(summary: VolumeSummary, training: TrainingRange) -> list[str]:
    found = []
    for axis, name in enumerate(AXES):
        spacing, side = summary.spacing[axis], summary.shape[axis]
        for phrase, value, (low, high) in (
            (f"spacing along {name} is {spacing:.3g} mm", spacing, training.spacing[axis]),
            (f"{side} voxels along {name}", side, training.shape[axis]),
        ):
            if not low * (1 - GEOMETRY_MARGIN) <= value <= high * (1 + GEOMETRY_MARGIN):
                found.append(f"{phrase} (training {_format_range(low, high)})")
    return found


def _unusual_intensities(values: Mapping[str, float], ranges: Mapping[str, Range], volumes: int) -> list[str]:
    least = MIN_INTENSITY_MARGIN * abs(ranges["p99"][1] - ranges["p01"][0])
    found = []
    for name, words in STATISTICS.items():
        low, high = ranges[name]
        margin = max(_intensity_margin(volumes) * (high - low), least)
        if not low - margin <= values[name] <= high + margin:
            found.append(f"intensity {words} is {values[name]:.3g} (training {_format_range(low, high)})")
    return found


def _intensity_margin(volumes: int) -> float:
    """Return the part of a range that is allowed beyond it; few volumes are exceeded easily by chance."""
    return INTENSITY_MARGIN + 2 / volumes


def _statistics(channel: Array) -> dict[str, float]:
    flat = channel.reshape(-1)
    sample = flat[:: max(1, flat.size // MAX_SAMPLES)].astype(np.float64)
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


def _format_range(low: float, high: float) -> str:
    first, last = f"{low:.3g}", f"{high:.3g}"
    return first if first == last else f"{first} to {last}"
