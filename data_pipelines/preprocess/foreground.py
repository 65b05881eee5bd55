"""Find the foreground of an image: the threshold that separates it from the background, and its box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxlift.data_pipelines.geometry import spacing_of
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.volume import Array, Stored, VolumeError, channels_of

MAX_SAMPLES = 200_000
"""So many voxels, evenly spread, are enough for a histogram threshold."""

MASKED_FRACTION = 0.1
"""Where this part of the voxels holds the minimum, the background was masked out (skull stripping)."""


def foreground_threshold(values: Array) -> float:
    """Return the value above which a voxel counts as foreground, found from the values themselves.

    For a masked image this is its minimum, for any other Otsu's threshold of the histogram.

    Args:
        values: Finite values of any shape.
    """
    flat = values.ravel(order="K")
    sample = flat[:: max(1, flat.size // MAX_SAMPLES)].astype(np.float64)
    lowest = float(sample.min())
    if (sample == lowest).mean() >= MASKED_FRACTION:
        return lowest
    return otsu_threshold(sample)


def otsu_threshold(values: Array) -> float:
    """Return Otsu's threshold of the histogram of finite values of any shape, which are not all the same.

    Source:
        Otsu 1979, A threshold selection method from gray-level histograms, doi:10.1109/TSMC.1979.4310076.
    """
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()[:-1]
    above = counts.sum() - below
    mass = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = below * above * (mass[:-1] / below - (mass[-1] - mass[:-1]) / above) ** 2
    return float(edges[1 + int(np.nanargmax(variance))])


def find_foreground_box(
    stored: Sequence[Stored], settings: Preprocess
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return the box around the foreground of all channels of a record, with its margin, within the image.

    Args:
        stored: The record's images, all on one grid.
        settings: Their foreground threshold and margin (mm).

    Returns:
        First voxel and the voxel after the last one, (i, j, k) each.

    Raises:
        VolumeError: Nothing lies above the threshold.
    """
    boxes = [box for one in stored for box in _channel_boxes(one, settings)]
    if not boxes:
        raise VolumeError(
            f"{stored[0].source}: no voxel is above foreground_threshold={settings.foreground_threshold}."
            " Lower preprocess.foreground_threshold, or set preprocess.foreground_crop=false."
        )
    spacing = np.array(spacing_of(stored[0].affine)[::-1])
    margin = np.round(settings.foreground_margin_mm / spacing).astype(int)
    start = np.maximum(np.min([box[0] for box in boxes], axis=0) - margin, 0)
    stop = np.minimum(np.max([box[1] for box in boxes], axis=0) + margin, stored[0].voxels.shape[:3])
    return (int(start[0]), int(start[1]), int(start[2])), (int(stop[0]), int(stop[1]), int(stop[2]))


def _channel_boxes(stored: Stored, settings: Preprocess) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the box of each channel that has a foreground; a negative slope turns the comparison round."""
    boxes = []
    for voxels in channels_of(stored):
        if settings.foreground_threshold is not None:
            threshold = (settings.foreground_threshold - stored.inter) / stored.slope
        else:
            threshold = foreground_threshold(voxels if stored.slope > 0 else -voxels.astype(np.float64))
            threshold = threshold if stored.slope > 0 else -threshold
        boxes.append(_box_of_mask(voxels > threshold if stored.slope > 0 else voxels < threshold))
    return [box for box in boxes if box is not None]


def _box_of_mask(mask: Array) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return start and stop (exclusive) of the smallest box around a 3D mask, None where nothing is set."""
    start, stop = [], []
    for axis in range(3):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if occupied.size == 0:
            return None
        start.append(int(occupied[0]))
        stop.append(int(occupied[-1]) + 1)
    return tuple(start), tuple(stop)
