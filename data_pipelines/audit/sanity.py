"""Check prepared volumes before training: blank images, a wrong intensity window, a small field of view.

None of it is an error: masks may be empty and a crop may be intended. But a window made for CT leaves a mask
without contrast, and a small shape shows only the middle of a large image, so that no network can learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.cache.metadata import VolumeSummary
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.volume import Array

MIN_CONTRAST = 0.02  # of the window, which is scaled to 0 to 1
LARGE_VALUE = 20.0  # initial weights suit values of the order of one
MIN_VISIBLE_FRACTION = 0.3  # of an image's volume; heads and lesions often fill less than half of it


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
