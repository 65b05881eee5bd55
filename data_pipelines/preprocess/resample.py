"""One resample, straight from the stored grid to the output grid.

The transform is given in index space: SimpleITK then sees two images with unit spacing and no direction, so a
sheared affine, which ITK refuses, is as good as any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from voxlift.data_pipelines.geometry import STEADY_VOXELS, Grid
from voxlift.data_pipelines.volume import Affine, Array

Interpolation = Literal["linear", "nearest"]
_INTERPOLATORS = {"linear": SimpleITK.sitkLinear, "nearest": SimpleITK.sitkNearestNeighbor}


def resample(
    voxels: Array, grid: Grid, *, interpolation: str = "linear", fill: float = 0.0, antialias: bool = False
) -> NDArray[np.float32]:
    """Return the voxels that an output grid shows.

    A grid that only permutes, flips, crops and pads is copied exactly; anything else is interpolated once,
    axis by axis where it runs along the stored axes.

    Args:
        voxels: `[i, j, k]` of the stored grid, any real type, finite.
        grid: The output grid in the index space of the stored one.
        interpolation: "linear" or "nearest".
        fill: Value outside the scanned field.
        antialias: Blur before linear interpolation along the axes that are thinned out.

    Returns:
        float32 of the grid's shape, first axis fastest, so that its `[D, H, W]` transpose is contiguous.

    Source:
        The blur: Cardoso et al. 2015, Scale factor point spread function matching,
        doi:10.1007/978-3-319-24571-3_81.
    """
    whole = _whole_voxel_map(grid, voxels.shape)
    if whole is not None:
        return _copy(voxels, grid.shape, whole, fill)
    if antialias and interpolation == "linear":
        voxels = gaussian_filter(
            voxels.astype(np.float32), antialias_sigmas(grid), mode="nearest", truncate=3
        )
    if interpolation == "linear" and is_straight(grid):
        return interpolate_straight(voxels, grid, fill)
    return _interpolate(voxels, grid, _INTERPOLATORS[interpolation], fill)


def antialias_sigmas(grid: Grid) -> tuple[float, ...]:
    """Return the blur in stored voxels, per stored axis, that coarser voxels stand for; 0 where finer.

    For a step of f stored voxels the standard deviation is sqrt((f^2 - 1) / (8 ln 2)).
    """
    steps = np.linalg.norm(grid.to_source[:3, :3], axis=1)
    return tuple(float(sigma) for sigma in np.sqrt(np.maximum(steps**2 - 1, 0) / (8 * np.log(2))))


def _whole_voxel_map(grid: Grid, shape: tuple[int, ...]) -> Affine | None:
    """Return the index map in whole numbers if it permutes, flips and shifts, otherwise None."""
    whole = np.round(grid.to_source)
    off = np.abs(grid.to_source - whole)
    reach = off[:3, :3] @ np.array(grid.shape) + off[:3, 3]
    linear = np.abs(whole[:3, :3])
    is_signed_permutation = (linear.sum(0) == 1).all() and (linear.sum(1) == 1).all()
    return whole if is_signed_permutation and reach.max() < STEADY_VOXELS and len(shape) == 3 else None


def _copy(voxels: Array, shape: tuple[int, ...], whole: Affine, fill: float) -> NDArray[np.float32]:
    out = np.full(shape, fill, np.float32, order="F")
    order = [int(np.argmax(np.abs(whole[:3, axis]))) for axis in range(3)]
    targets, sources = [], []
    for axis, source_axis in enumerate(order):
        sign, start = int(whole[source_axis, axis]), int(whole[source_axis, 3])
        side = voxels.shape[source_axis]
        # Output o shows stored sign * o + start: the o for which that lies in 0 .. side - 1.
        low, high = (-start, side - start) if sign > 0 else (start - side + 1, start + 1)
        low, high = max(low, 0), min(high, shape[axis])
        if low >= high:
            return out
        first, last = sign * low + start, sign * (high - 1) + start
        targets.append(slice(low, high))
        sources.append(slice(first, last + 1) if sign > 0 else slice(first, last - 1 if last else None, -1))
    out[tuple(targets)] = voxels.transpose(order)[tuple(sources)]
    return out


def _interpolate(voxels: Array, grid: Grid, interpolator: int, fill: float) -> NDArray[np.float32]:
    if voxels.dtype.name in {"bool", "float16"}:
        voxels = voxels.astype(np.float32)
    transform = SimpleITK.AffineTransform(3)
    transform.SetMatrix(grid.to_source[:3, :3].ravel().tolist())
    transform.SetTranslation(grid.to_source[:3, 3].tolist())
    resampler = SimpleITK.ResampleImageFilter()
    resampler.SetSize([int(side) for side in grid.shape])
    resampler.SetTransform(transform)
    resampler.SetInterpolator(interpolator)
    resampler.SetDefaultPixelValue(float(fill))
    resampler.SetOutputPixelType(SimpleITK.sitkFloat32)
    # Parallel work is over volumes: threads within one volume would only fight them for the cores.
    resampler.SetNumberOfThreads(1)
    image = resampler.Execute(SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.T)))
    result: NDArray[np.float32] = SimpleITK.GetArrayFromImage(image).T
    return result


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
