"""What a person would see at a glance at prepared volumes, before a network is trained on them for hours.

None of it is an error: masks may be empty and a crop may be meant. But a window made for CT leaves a mask
without contrast, and a small shape shows the middle of a large image alone; then no network can learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxlift.data_pipelines.cache.ranges import Sketch
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.volume import Array

FAINT = 0.02  # of the window's 0 to 1
LARGE = 20.0  # networks begin with weights for values of the order of one
SMALL_PART = 0.3  # of an image's volume; heads and lesions often fill less than half of theirs


@dataclass(frozen=True)
class Span:
    """The smallest and the largest value of a prepared volume."""

    low: float
    high: float


def span_of(prepared: Array) -> Span:
    """Return the span of one prepared volume's values."""
    return Span(float(prepared.min()), float(prepared.max()))


def remarks(
    spans: Sequence[Span], sketches: Sequence[Sketch], settings: Preprocess, shape: Sequence[int]
) -> tuple[str, ...]:
    """Return a sentence for each thing that would keep a network from learning, with the way out.

    Args:
        spans: Of some prepared training volumes, at least one.
        sketches: Of training records, at least one.
        settings: The preprocessing.
        shape: Of the prepared volumes, (depth, height, width).
    """
    found = [
        _blank(spans),
        _faint(spans, settings),
        _large(spans, settings),
        _small_part(sketches, settings, shape),
    ]
    return tuple(sentence for sentence in found if sentence)


def _blank(spans: Sequence[Span]) -> str:
    blank = sum(span.low == span.high for span in spans)
    if not blank:
        return ""
    return (
        f"{blank} of {len(spans)} prepared training volumes are blank: their images are, or what these show "
        "lies outside preprocess.shape or the window of intensities. voxlift-audit names blank images."
    )


def _faint(spans: Sequence[Span], settings: Preprocess) -> str:
    contrast = float(np.median([span.high - span.low for span in spans]))
    if settings.window_hu is None or settings.zscore != "none" or not 0 < contrast < FAINT:
        return ""
    low, high = settings.window_hu
    return (
        f"preprocess.window_hu=[{low:g},{high:g}] leaves the images a contrast of {contrast:.2g} where 1 is "
        "full: it is no window of their values. Take preprocess=mri, mask or none, or a window that is."
    )


def _large(spans: Sequence[Span], settings: Preprocess) -> str:
    if settings.window_hu or settings.clip_percentiles or settings.zscore != "none":
        return ""
    largest = float(np.median([max(abs(span.low), abs(span.high)) for span in spans]))
    if largest < LARGE:
        return ""
    low, high = (float(np.median(ends)) for ends in zip(*((one.low, one.high) for one in spans), strict=True))
    return (
        f"The network is handed values from {low:.4g} to {high:.4g}, and learns best from values of the "
        f"order of one: set 'preprocess.window_hu=[{low:.4g},{high:.4g}]', or take preprocess=ct or mri."
    )


def _small_part(sketches: Sequence[Sketch], settings: Preprocess, shape: Sequence[int]) -> str:
    if settings.shape is None or settings.fit != "pad_crop" or settings.foreground_crop:
        return ""
    images = np.array([np.multiply(one.shape, one.spacing) for one in sketches])
    steps = np.array([settings.spacing or one.spacing for one in sketches])
    views = np.array(shape[:3]) * steps
    share = float(np.median((np.minimum(images, views) / images).prod(axis=1)))
    if share >= SMALL_PART:
        return ""
    view, image = (_spoken(np.median(sides, axis=0)) for sides in (views, images))
    return (
        f"preprocess.shape=[{','.join(map(str, shape[:3]))}] shows the middle {view} mm of images that are "
        f"{image} mm (depth x height x width), {share:.0%} of them. Take a larger preprocess.shape or a "
        "coarser preprocess.spacing; voxlift-audit suggests both."
    )


def _spoken(sides: Array) -> str:
    return " x ".join(f"{side:.3g}" for side in sides)
