"""What the numbers mean: windows, percentiles, standard scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.geometry import Grid, corners_off_mm, is_same_grid
from voxlift.data_pipelines.volume import Array, Stored, VolumeError

Values = NDArray[np.float32]


def apply_window(values: Values, low: float, high: float) -> Values:
    """Return the values with `low` .. `high` (HU for CT) mapped to [0, 1], clipped, float32, any shape.

    Args:
        values: Float32, in the image's own units.
        low: What becomes 0.
        high: What becomes 1, above `low`.
    """
    scaled: Values = (values - np.float32(low)) * np.float32(1 / (high - low))
    return np.clip(scaled, 0, 1, out=scaled)


def clip_to_percentiles(values: Values, among: Values, low: float, high: float) -> Values:
    """Return the values clipped to two percentiles (0 .. 100) of the values in `among`.

    Args:
        values: Float32 of any shape.
        among: The values that the percentiles are of.
        low: Percentile, 0 to 100.
        high: Percentile, above `low`.

    Returns:
        Float32 of the shape of `values`, in their units.
    """
    bounds = np.percentile(among, [low, high]).astype(np.float32)
    return np.clip(values, bounds[0], bounds[1])


def standard_scores(values: Values, among: Values) -> Values:
    """Return the values less the mean, over the standard deviation, of the values in `among`.

    Args:
        values: Float32 of any shape.
        among: The values that mean and standard deviation are of.

    Returns:
        Float32 of the shape of `values`, without unit.

    Raises:
        ValueError: The values in `among` are constant, so that they have no scale.
    """
    mean, deviation = float(among.mean(dtype=np.float64)), float(among.std(dtype=np.float64))
    if not deviation > 1e-6 * max(abs(mean), 1e-30):
        raise ValueError(f"every voxel is {mean:.6g}, so a standard score has no scale")
    scores: Values = (values - np.float32(mean)) * np.float32(1 / deviation)
    return scores


def each_channel(stored: Stored) -> list[Array]:
    """Return the 3D arrays of an image's channels: one, or as many as its fourth axis has.

    Returns:
        Arrays `[i, j, k]` in the stored type, views.
    """
    if stored.voxels.ndim == 3:
        return [stored.voxels]
    return [stored.voxels[..., channel] for channel in range(stored.voxels.shape[3])]


def check_same_grid(stored: Sequence[Stored]) -> None:
    """Refuse a record whose channels do not share a grid.

    Args:
        stored: The record's images, the first one leading.

    Raises:
        VolumeError: Lists the channels that differ from the first.
    """
    first = stored[0]
    shape = first.voxels.shape
    wrong = [
        f"{one.source} ({'x'.join(map(str, one.voxels.shape[:3]))}, corners up to"
        f" {corners_off_mm(first.affine, one.affine, shape):.3g} mm away)"
        for one in stored[1:]
        if not is_same_grid(one.voxels.shape, one.affine, shape, first.affine)
    ]
    if wrong:
        raise VolumeError(
            f"{first.source}: the channels of a record must share a grid"
            f" ({'x'.join(map(str, shape[:3]))}); these do not: {'; '.join(wrong)}."
            " Register them, or set preprocess.same_grid=false to resample them onto the first."
        )


def looking_at(one: Stored, first: Stored, grid: Grid) -> Grid:
    """Return the grid as seen from another image of the record, through the world where grids differ.

    Args:
        one: Another image of the record.
        first: The image in whose index space the grid is given.
        grid: The output grid.
    """
    if is_same_grid(one.voxels.shape, one.affine, first.voxels.shape, first.affine):
        return grid
    return replace(grid, to_source=np.linalg.inv(one.affine) @ first.affine @ grid.to_source)
