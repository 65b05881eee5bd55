"""Axes, spacing and resampling grids of volumes.

The axis convention of the whole package: NIfTI array axes are i, j, k. After RAS canonicalisation i grows
towards the patient's Right, j towards Anterior, k towards Superior. A tensor is
`[depth, height, width, channels]` with depth = S (k), height = A (j), width = R (i); only `to_tensor_axes`
and `from_tensor_axes` convert between the two. Spacings (mm) and shapes in settings are ordered
(depth, height, width).
"""

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from voxlift.data_pipelines.volume import Affine, Array

Triple = tuple[int, int, int]
Millimetres = tuple[float, float, float]

SAME_GRID_VOXELS = 0.01
"""Grids that differ by less than this many voxels are the same grid: headers store float32."""


@dataclass(frozen=True, eq=False)
class Grid:
    """An output grid, described in the index space of the stored grid that it samples.

    Attributes:
        shape: Voxels along the three axes (i, j, k order).
        to_source: 4x4 float64, index in this grid -> continuous index in the stored grid.
    """

    shape: Triple
    to_source: Affine


def to_tensor_axes(voxels: Array) -> Array:
    """Return `[R, A, S]` or `[R, A, S, C]` voxels as `[D, H, W]` or `[D, H, W, C]`, a view."""
    return np.swapaxes(voxels, 0, 2)


def from_tensor_axes(voxels: Array) -> Array:
    """Return `[D, H, W]` or `[D, H, W, C]` voxels as `[R, A, S]` or `[R, A, S, C]`, a view."""
    return np.swapaxes(voxels, 0, 2)


def spacing_of(affine: Affine) -> Millimetres:
    """Return the spacing in mm, ordered (depth, height, width): the lengths of the columns, last first."""
    i, j, k = np.linalg.norm(affine[:3, :3], axis=0)
    return (float(k), float(j), float(i))


def axcodes_of(affine: Affine) -> str:
    """Return the axis codes, such as "RAS" or "LPI": the world direction closest to each voxel axis.

    Args:
        affine: 4x4, index -> mm, RAS+.
    """
    codes = np.array([["L", "R"], ["P", "A"], ["I", "S"]])
    return "".join(codes[int(axis), int(sign > 0)] for axis, sign in io_orientation(affine))


def directions_of(affine: Affine) -> Affine:
    """Return the unit vectors [3, 3] of the voxel axes in the world, one per column."""
    unit: Affine = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return unit


def is_sheared(affine: Affine, *, tolerance: float) -> bool:
    """Return whether two voxel axes are not at right angles.

    Args:
        affine: 4x4, index -> mm.
        tolerance: Largest cosine of an angle that counts as a right angle.
    """
    unit = directions_of(affine)
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() > tolerance)


def ras_geometry(shape: tuple[int, ...], affine: Affine) -> tuple[Triple, Millimetres]:
    """Return voxels and spacing in mm, both ordered (depth, height, width), of an image reoriented to RAS.

    Args:
        shape: Stored voxels along (i, j, k); further axes do not count.
        affine: 4x4, index -> mm.
    """
    grid = reorient_grid(stored_grid(shape), affine)
    width, height, depth = grid.shape
    return (depth, height, width), spacing_of(grid_affine(grid, affine))


def grid_affine(grid: Grid, affine: Affine) -> Affine:
    """Return the affine of a grid, index -> world mm, from the affine of the stored grid that it samples.

    Args:
        grid: Any grid.
        affine: 4x4, of the stored grid.
    """
    return affine @ grid.to_source


def stored_grid(shape: tuple[int, ...]) -> Grid:
    """Return the grid of a stored array of this shape, from which every other grid is derived."""
    return Grid((shape[0], shape[1], shape[2]), np.eye(4))


def crop_grid(grid: Grid, start: Triple, stop: Triple) -> Grid:
    """Return the box of a grid from `start` up to, not including, `stop`.

    Args:
        grid: The grid to cut from.
        start: First voxel kept, (i, j, k) of this grid.
        stop: The voxel after the last one kept, (i, j, k).
    """
    shape = tuple(high - low for low, high in zip(start, stop, strict=True))
    return _derive(grid, shape, (1.0, 1.0, 1.0), start)


def reorient_grid(grid: Grid, affine: Affine, axcodes: str = "RAS") -> Grid:
    """Return the grid with its axes permuted and flipped to the axis codes; oblique axes stay oblique.

    Args:
        grid: The grid to reorient.
        affine: Of the stored grid.
        axcodes: World directions of the three output axes.
    """
    current = io_orientation(grid_affine(grid, affine))
    transform = ornt_transform(current, axcodes2ornt(axcodes))
    shape = [0, 0, 0]
    for axis, (target, _) in enumerate(transform):
        shape[int(target)] = grid.shape[axis]
    return Grid((shape[0], shape[1], shape[2]), grid.to_source @ inv_ornt_aff(transform, grid.shape))


def respace_grid(grid: Grid, affine: Affine, spacing: Millimetres) -> Grid:
    """Return the grid with a new spacing over the same field of view, both centred on the same point.

    Args:
        grid: The grid to resample.
        affine: Of the stored grid.
        spacing: mm, ordered (depth, height, width).
    """
    current = spacing_of(grid_affine(grid, affine))[::-1]
    shape, scale, start = [], [], []
    for side, old, new in zip(grid.shape, current, spacing[::-1], strict=True):
        factor = new / old
        if abs(factor - 1) * side < SAME_GRID_VOXELS:
            factor = 1.0
        count = max(1, round(side / factor))
        shape.append(count)
        scale.append(factor)
        start.append((side - 1) / 2 - (count - 1) / 2 * factor)
    return _derive(grid, tuple(shape), tuple(scale), tuple(start))


def fit_grid(grid: Grid, shape: Triple) -> Grid:
    """Return the grid cropped or padded about its centre to a shape, ordered (depth, height, width).

    Whole voxels only: an odd difference puts the extra voxel at the end of the axis.

    Args:
        grid: The grid to crop or pad.
        shape: Voxels, ordered (depth, height, width).
    """
    start = tuple(int((side - wanted) / 2) for side, wanted in zip(grid.shape, shape[::-1], strict=True))
    return _derive(grid, shape[::-1], (1.0, 1.0, 1.0), start)


def stretch_grid(grid: Grid, shape: Triple) -> Grid:
    """Return the grid stretched to a shape, ordered (depth, height, width), over the same field of view.

    Args:
        grid: The grid to stretch.
        shape: Voxels, ordered (depth, height, width).
    """
    scale = tuple(side / wanted for side, wanted in zip(grid.shape, shape[::-1], strict=True))
    return _derive(grid, shape[::-1], scale, tuple((factor - 1) / 2 for factor in scale))


def field_of_view(grid: Grid, source_shape: tuple[int, ...]) -> Array:
    """Return which voxels of a grid lie in the scanned field, bool, broadcastable to the grid's shape.

    Args:
        grid: The output grid.
        source_shape: Voxels of the stored grid; the first three axes count.
    """
    inside = np.ones((1, 1, 1), bool)
    axes = np.ogrid[tuple(slice(side) for side in grid.shape)]
    for row, side in zip(grid.to_source, source_shape[:3], strict=False):
        # Only the axes that matter enter the sum: a grid without rotation costs three vectors.
        terms = [row[axis] * axes[axis] for axis in range(3) if row[axis]]
        index = sum(terms, np.full((1, 1, 1), row[3]))
        # A voxel exactly on the border would depend on rounding: the border counts as outside.
        inside = inside & (index > -0.5 + 1e-6) & (index < side - 0.5 - 1e-6)
    return inside


def corner_distance_mm(affine: Affine, other: Affine, shape: tuple[int, ...]) -> float:
    """Return the largest distance in mm between the corners of a volume under two affines.

    Args:
        affine: 4x4, index -> mm.
        other: The other one.
        shape: Voxels along (i, j, k); further axes do not count.
    """
    corners = np.array([[*index, 1] for index in np.ndindex(2, 2, 2)]) * [*np.subtract(shape[:3], 1), 1]
    return float(np.linalg.norm(((affine - other) @ corners.T)[:3], axis=0).max())


def is_same_grid(
    shape: tuple[int, ...], affine: Affine, other_shape: tuple[int, ...], other_affine: Affine
) -> bool:
    """Return whether two images share a grid: equal sides, corners within a tenth of the finest spacing.

    Args:
        shape: Voxels along (i, j, k); further axes do not count.
        affine: 4x4, index -> mm.
        other_shape: Of the other image.
        other_affine: Of the other image; its finest spacing sets the tolerance.
    """
    distance = corner_distance_mm(affine, other_affine, shape)
    return shape[:3] == other_shape[:3] and distance <= 0.1 * min(spacing_of(other_affine))


def _derive(grid: Grid, shape: tuple[int, ...], scale: tuple[float, ...], start: tuple[float, ...]) -> Grid:
    step = np.diag([*scale, 1.0])
    step[:3, 3] = start
    return Grid((shape[0], shape[1], shape[2]), grid.to_source @ step)
