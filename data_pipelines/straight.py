"""Linear interpolation onto a grid whose axes run along the stored ones: most grids there are.

Such a grid is interpolated one axis after the other, which costs half of what eight neighbours per voxel do.
Plane by plane, so that what is computed on stays in the processor's cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.geometry import Grid
from voxlift.data_pipelines.volume import Array

Values = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Axis:
    """Where one axis of the output looks on its stored axis.

    Attributes:
        source: Which stored axis.
        low: [N] the stored neighbour below, within the stored axis.
        high: [N] the one above; the outermost voxel reaches half a voxel beyond its centre.
        weight: [N] of the neighbour above.
        is_inside: [N] whether that is within the field that was scanned.
    """

    source: int
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: NDArray[np.float64]
    is_inside: NDArray[np.bool_]


def is_straight(grid: Grid) -> bool:
    """Return whether every axis of the grid runs along one axis of the stored grid, either way."""
    runs = grid.to_source[:3, :3] != 0
    return bool((runs.sum(0) == 1).all() and (runs.sum(1) == 1).all())


def interpolate_straight(voxels: Array, grid: Grid, fill: float) -> Values:
    """Return the voxels that a straight grid shows, linearly interpolated.

    Args:
        voxels: `[i, j, k]` of the stored grid, any real type, finite.
        grid: The output grid, see `is_straight`.
        fill: Value outside the scanned field.

    Returns:
        float32 of the grid's shape, first axis fastest.
    """
    axes = [_axis(grid, axis, voxels.shape) for axis in range(3)]
    planes = voxels.transpose([axis.source for axis in axes]).T  # [k, j, i] of the output's axes, a view
    with np.errstate(over="ignore", invalid="ignore"):
        out = _by_planes(planes, *axes, kind=np.float32)
        if not np.isfinite(out).all():
            # The distance between two numbers near float32's limits does not fit into float32.
            out = _by_planes(planes, *axes, kind=np.float64)
    for index, axis in enumerate(axes[::-1]):
        if not axis.is_inside.all():
            out[(slice(None),) * index + (~axis.is_inside,)] = fill
    return out.T


def _by_planes(planes: Array, i: _Axis, j: _Axis, k: _Axis, *, kind: type[np.floating[Any]]) -> Values:
    """The interpolated planes, float32 `[k, j, i]`, computed in `kind`."""
    rows, columns = _span(j), _span(i)
    plane_at = _plane_reader(planes[:, rows, columns], kind)
    low, high = j.low - rows.start, j.high - rows.start
    left, right = i.low - columns.start, i.high - columns.start
    across, along = j.weight[:, None].astype(kind), i.weight.astype(kind)
    out = np.empty((k.low.size, j.low.size, i.low.size), np.float32)
    for place, weight in enumerate(k.weight.astype(kind)):
        plane = _between(plane_at(k.low[place]), plane_at(k.high[place]), weight)
        plane = _between(plane[low], plane[high], across)
        out[place] = _between(plane.take(left, axis=1), plane.take(right, axis=1), along)
    return out


def _axis(grid: Grid, axis: int, shape: tuple[int, ...]) -> _Axis:
    source = int(np.flatnonzero(grid.to_source[:3, axis])[0])
    side = shape[source]
    places = grid.to_source[source, axis] * np.arange(grid.shape[axis]) + grid.to_source[source, 3]
    within = np.clip(places, 0, side - 1)
    low = np.floor(within).astype(np.int64)
    return _Axis(
        source=source,
        low=low,
        high=np.minimum(low + 1, side - 1),
        weight=within - low,
        is_inside=(places >= -0.5) & (places < side - 0.5),
    )


def _span(axis: _Axis) -> slice:
    """The part of the stored axis that is looked at."""
    return slice(int(axis.low.min()), int(axis.high.max()) + 1)


def _plane_reader(planes: Array, kind: type[np.floating[Any]]) -> Callable[[int], Array]:
    """A function of a plane's index that keeps the last two planes: neighbours are asked for in turn."""
    kept: dict[int, Array] = {}

    def plane_at(index: int) -> Array:
        if index not in kept:
            while len(kept) > 1:
                del kept[next(iter(kept))]
            kept[index] = np.ascontiguousarray(planes[index], kind)
        return kept[index]

    return plane_at


def _between(one: Array, other: Array, weight: Array) -> Array:
    """A new array, `weight` of the way from one to the other: between equals it is exactly what they are."""
    result = other - one
    result *= weight
    result += one
    return result
