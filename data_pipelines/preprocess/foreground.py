"""Where the body is: the threshold between foreground and background, and the box around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxlift.data_pipelines.geometry import spacing_of
from voxlift.data_pipelines.preprocess.intensity import each_channel
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.volume import Array, Stored, VolumeError

SAMPLE = 200_000
"""So many voxels, evenly spread, are enough for a histogram threshold."""


def foreground_threshold(values: Array) -> float:
    """Return the value above which a voxel counts as foreground, found from the values themselves.

    A masked image (a tenth of it or more holds its minimum, as after skull stripping) has its minimum as the
    threshold; any other has the one that best parts its histogram in two.

    Args:
        values: Finite values of any shape.

    Source:
        Otsu 1979, A threshold selection method from gray-level histograms, doi:10.1109/TSMC.1979.4310076.
    """
    flat = values.ravel(order="K")
    sample = flat[:: max(1, flat.size // SAMPLE)].astype(np.float64)
    lowest = float(sample.min())
    if (sample == lowest).mean() >= 0.1:
        return lowest
    counts, edges = np.histogram(sample, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()[:-1]
    above = counts.sum() - below
    mass = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass[:-1] / below - (mass[-1] - mass[:-1]) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between))])


def foreground_box(mask: Array) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return start and stop (exclusive) of the smallest box around a 3D mask, None where nothing is set."""
    start, stop = [], []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if hit.size == 0:
            return None
        start.append(int(hit[0]))
        stop.append(int(hit[-1]) + 1)
    return tuple(start), tuple(stop)


def record_box(
    stored: Sequence[Stored], settings: Preprocess
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return start and stop of the box around all channels' foreground, margin in, within the image.

    Args:
        stored: The record's images, all on one grid.
        settings: Their foreground threshold and margin.

    Raises:
        VolumeError: Nothing lies above the threshold.
    """
    boxes = [box for one in stored for box in _boxes(one, settings)]
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


def _boxes(stored: Stored, settings: Preprocess) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    boxes = []
    for voxels in each_channel(stored):
        if settings.foreground_threshold is not None:
            threshold = (settings.foreground_threshold - stored.inter) / stored.slope
        else:
            threshold = foreground_threshold(voxels if stored.slope > 0 else -voxels.astype(np.float64))
            threshold = threshold if stored.slope > 0 else -threshold
        boxes.append(foreground_box(voxels > threshold if stored.slope > 0 else voxels < threshold))
    return [box for box in boxes if box is not None]
