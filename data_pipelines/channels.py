"""The channels of one record: several files or a fourth axis, on one grid."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from voxlift.data_pipelines.geometry import Grid, corners_off_mm, is_same_grid
from voxlift.data_pipelines.volume import Array, Stored, VolumeError


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
