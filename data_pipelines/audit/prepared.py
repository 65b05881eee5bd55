"""Check prepared volumes: those of a training before it starts, and new ones against its ranges.

Blank images, a wrong intensity window or a small field of view are no errors: masks may be empty and a crop
may be intended. But a window made for CT leaves a mask without contrast, and a small shape shows only the
middle of a large image, so that no network can learn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.cache.format import STATISTICS, VolumeSummary
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.volume import Array

MIN_CONTRAST = 0.02  # of the window, which is scaled to 0 to 1
LARGE_VALUE = 20.0  # initial weights suit values of the order of one
MIN_VISIBLE_FRACTION = 0.3  # of an image's volume; heads and lesions often fill less than half of it
GEOMETRY_MARGIN = 0.1  # allowed beyond the extremes of spacing and size, as a part of them
INTENSITY_MARGIN = 0.25  # of the training range, and more for few volumes: see `_intensity_margin`
MIN_INTENSITY_MARGIN = 0.05  # of the training contrast, where all volumes gave nearly the same number
AXES = ("depth", "height", "width")

Range = tuple[float, float]


@dataclass(frozen=True)
class ValueRange:
    """The smallest and the largest value of a prepared volume."""

    low: float
    high: float


def value_range(prepared: Array) -> ValueRange:
    """Return the smallest and the largest value of one prepared volume."""
    return ValueRange(float(prepared.min()), float(prepared.max()))


def check_prepared(
    ranges: Sequence[ValueRange],
    summaries: Sequence[VolumeSummary],
    settings: Preprocess,
    shape: Sequence[int],
) -> tuple[str, ...]:
    """Return a sentence for each property that may keep a network from learning, and how to fix it.

    Args:
        ranges: Of some prepared training volumes, at least one.
        summaries: Of training records, at least one.
        settings: The preprocessing.
        shape: Of the prepared volumes, (depth, height, width).
    """
    found = [
        _check_blank(ranges),
        _check_contrast(ranges, settings),
        _check_large_values(ranges, settings),
        _check_field_of_view(summaries, settings, shape),
    ]
    return tuple(filter(None, found))


def _check_blank(ranges: Sequence[ValueRange]) -> str:
    blank = sum(one.low == one.high for one in ranges)
    if not blank:
        return ""
    return (
        f"{blank} of {len(ranges)} prepared training volumes are blank: either the images are, or what they "
        "show is outside preprocess.shape or the intensity window. voxlift-audit lists blank images."
    )


def _check_contrast(ranges: Sequence[ValueRange], settings: Preprocess) -> str:
    contrast = float(np.median([one.high - one.low for one in ranges]))
    if settings.window_hu is None or settings.zscore != "none" or not 0 < contrast < MIN_CONTRAST:
        return ""
    low, high = settings.window_hu
    return (
        f"preprocess.window_hu=[{low:g},{high:g}] leaves the images a contrast of {contrast:.2g}, where full "
        "contrast is 1: the window does not fit their values. Use preprocess=mri, mask or none, or another "
        "window."
    )


def _check_large_values(ranges: Sequence[ValueRange], settings: Preprocess) -> str:
    if settings.window_hu or settings.clip_percentiles or settings.zscore != "none":
        return ""
    largest = float(np.median([max(abs(one.low), abs(one.high)) for one in ranges]))
    if largest < LARGE_VALUE:
        return ""
    low = float(np.median([one.low for one in ranges]))
    high = float(np.median([one.high for one in ranges]))
    return (
        f"The network receives values from {low:.4g} to {high:.4g}, but learns best from values of the order "
        f"of one: set 'preprocess.window_hu=[{low:.4g},{high:.4g}]', or use preprocess=ct or mri."
    )


def _check_field_of_view(
    summaries: Sequence[VolumeSummary], settings: Preprocess, shape: Sequence[int]
) -> str:
    if settings.shape is None or settings.fit != "pad_crop" or settings.foreground_crop:
        return ""
    images_mm = np.array([np.multiply(one.shape, one.spacing) for one in summaries])
    spacings = np.array([settings.spacing or one.spacing for one in summaries])
    fields_mm = np.array(shape[:3]) * spacings
    fraction = float(np.median((np.minimum(images_mm, fields_mm) / images_mm).prod(axis=1)))
    if fraction >= MIN_VISIBLE_FRACTION:
        return ""
    return (
        f"preprocess.shape=[{','.join(map(str, shape[:3]))}] shows the middle {_median_sides(fields_mm)} mm "
        f"of images of {_median_sides(images_mm)} mm (depth x height x width), {fraction:.0%} of them. Use a "
        "larger preprocess.shape or a coarser preprocess.spacing; voxlift-audit suggests both."
    )


def _median_sides(sides: NDArray[np.float64]) -> str:
    return " x ".join(f"{side:.3g}" for side in np.median(sides, axis=0))


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


def _extremes(values: Sequence[float]) -> Range:
    return min(values), max(values)


def _format_range(low: float, high: float) -> str:
    first, last = f"{low:.3g}", f"{high:.3g}"
    return first if first == last else f"{first} to {last}"
