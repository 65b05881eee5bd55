"""Resample an image from its stored grid to an output grid, in one step.

The transform is given in index space: SimpleITK then sees two images with unit spacing and no direction, so
that a sheared affine, which ITK refuses, works like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from voxlift.data_pipelines.geometry import SAME_GRID_VOXELS, Grid
from voxlift.data_pipelines.volume import Affine, Array

Values = NDArray[np.float32]
BLOCK_BYTES = 1_000_000  # interpolated at once: fits into the processor's cache, and threads seldom wait
_INTERPOLATORS = {"linear": SimpleITK.sitkLinear, "nearest": SimpleITK.sitkNearestNeighbor}


def resample(
    voxels: Array, grid: Grid, *, interpolation: str = "linear", fill: float = 0.0, antialias: bool = False
) -> Values:
    """Return an image resampled onto an output grid.

    A grid that only permutes, flips, crops and pads is copied exactly; anything else is interpolated once,
    separably, axis by axis, where its axes run along the stored ones.

    Args:
        voxels: `[i, j, k]` of the stored grid, any real type, finite.
        grid: The output grid in the index space of the stored one.
        interpolation: "linear" or "nearest".
        fill: Value outside the scanned field.
        antialias: Blur before linear interpolation along the axes that become coarser.

    Returns:
        float32 of the grid's shape, first axis fastest, so that its `[D, H, W]` transpose is contiguous.

    Source:
        The blur: Cardoso et al. 2015, Scale factor point spread function matching,
        doi:10.1007/978-3-319-24571-3_81.
    """
    index_map = _integer_index_map(grid, voxels.shape)
    if index_map is not None:
        return _copy_voxels(voxels, grid.shape, index_map, fill)
    if antialias and interpolation == "linear":
        voxels = gaussian_filter(
            voxels.astype(np.float32), antialias_sigmas(grid), mode="nearest", truncate=3
        )
    if interpolation == "linear" and is_separable(grid):
        return resample_separable(voxels, grid, fill)
    return _interpolate_itk(voxels, grid, _INTERPOLATORS[interpolation], fill)


def antialias_sigmas(grid: Grid) -> tuple[float, ...]:
    """Return the blur (standard deviation in stored voxels) along each stored axis; 0 where not coarser.

    For a step of f stored voxels the standard deviation is sqrt((f^2 - 1) / (8 ln 2)).
    """
    steps = np.linalg.norm(grid.to_source[:3, :3], axis=1)
    return tuple(float(sigma) for sigma in np.sqrt(np.maximum(steps**2 - 1, 0) / (8 * np.log(2))))


def _integer_index_map(grid: Grid, shape: tuple[int, ...]) -> Affine | None:
    """Return the index map in integers if it only permutes, flips and shifts, otherwise None."""
    rounded = np.round(grid.to_source)
    error = np.abs(grid.to_source - rounded)
    largest = error[:3, :3] @ np.array(grid.shape) + error[:3, 3]
    linear = np.abs(rounded[:3, :3])
    is_signed_permutation = (linear.sum(0) == 1).all() and (linear.sum(1) == 1).all()
    is_exact = is_signed_permutation and largest.max() < SAME_GRID_VOXELS and len(shape) == 3
    return rounded if is_exact else None


def _copy_voxels(voxels: Array, shape: tuple[int, ...], index_map: Affine, fill: float) -> Values:
    out = np.full(shape, fill, np.float32, order="F")
    order = [int(np.argmax(np.abs(index_map[:3, axis]))) for axis in range(3)]
    targets, sources = [], []
    for axis, source_axis in enumerate(order):
        sign, start = int(index_map[source_axis, axis]), int(index_map[source_axis, 3])
        side = voxels.shape[source_axis]
        # Output index o reads stored index sign * o + start: the o for which that lies in 0 .. side - 1.
        low, high = (-start, side - start) if sign > 0 else (start - side + 1, start + 1)
        low, high = max(low, 0), min(high, shape[axis])
        if low >= high:
            return out
        first, last = sign * low + start, sign * (high - 1) + start
        targets.append(slice(low, high))
        sources.append(slice(first, last + 1) if sign > 0 else slice(first, last - 1 if last else None, -1))
    out[tuple(targets)] = voxels.transpose(order)[tuple(sources)]
    return out


def _interpolate_itk(voxels: Array, grid: Grid, interpolator: int, fill: float) -> Values:
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
    # Volumes are processed in parallel: threads within one volume would only compete for the cores.
    resampler.SetNumberOfThreads(1)
    image = resampler.Execute(SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.T)))
    result: NDArray[np.float32] = SimpleITK.GetArrayFromImage(image).T
    return result


@dataclass(frozen=True, eq=False)
class _AxisSampling:
    """Linear interpolation along one output axis, in indices of its stored axis.

    Attributes:
        source: Number of the stored axis.
        low: [N] lower stored neighbour of each output voxel.
        high: [N] upper neighbour; the outermost voxel extends half a voxel beyond its centre.
        weight: [N] weight of the upper neighbour.
        is_inside: [N] whether the output voxel lies in the scanned field.
    """

    source: int
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: NDArray[np.float64]
    is_inside: NDArray[np.bool_]


def is_separable(grid: Grid) -> bool:
    """Return whether every axis of the grid runs along one axis of the stored grid, either way."""
    runs = grid.to_source[:3, :3] != 0
    return bool((runs.sum(0) == 1).all() and (runs.sum(1) == 1).all())


def resample_separable(voxels: Array, grid: Grid, fill: float) -> Values:
    """Return an image on a separable grid, linearly interpolated along one axis after the other.

    Args:
        voxels: `[i, j, k]` of the stored grid, any real type, finite.
        grid: The output grid, see `is_separable`.
        fill: Value outside the scanned field.

    Returns:
        float32 of the grid's shape, first axis fastest.
    """
    axes = [_sample_axis(grid, axis, voxels.shape) for axis in range(3)]
    planes = voxels.transpose([axis.source for axis in axes]).T  # [k, j, i] of the output's axes, a view
    with np.errstate(over="ignore", invalid="ignore"):
        out = _interpolate_planes(planes, *axes, dtype=np.float32)
        if not np.isfinite(out).all():
            # The distance between two numbers near float32's limits does not fit into float32.
            out = _interpolate_planes(planes, *axes, dtype=np.float64)
    for index, axis in enumerate(axes[::-1]):
        if not axis.is_inside.all():
            out[(slice(None),) * index + (~axis.is_inside,)] = fill
    return out.T


def _interpolate_planes(
    planes: Array, i: _AxisSampling, j: _AxisSampling, k: _AxisSampling, *, dtype: type[np.floating[Any]]
) -> Values:
    """Return the interpolated planes, float32 `[k, j, i]`, computed in `dtype`."""
    rows, columns = _sampled_range(j), _sampled_range(i)
    stored = planes[:, rows, columns]
    low, high = j.low - rows.start, j.high - rows.start
    left, right = i.low - columns.start, i.high - columns.start
    through = k.weight[:, None, None].astype(dtype)
    across, along = j.weight[:, None].astype(dtype), i.weight.astype(dtype)
    out = np.empty((k.low.size, j.low.size, i.low.size), np.float32)
    step = max(1, BLOCK_BYTES // (stored[0].size * np.dtype(dtype).itemsize))
    for part in (slice(start, start + step) for start in range(0, k.low.size, step)):
        below, above = _read_planes(stored, k.low[part], k.high[part], dtype)
        block = _lerp(below, above, through[part])
        block = _lerp(block.take(low, axis=1), block.take(high, axis=1), across)
        out[part] = _lerp(block.take(left, axis=2), block.take(right, axis=2), along)
    return out


def _sample_axis(grid: Grid, axis: int, shape: tuple[int, ...]) -> _AxisSampling:
    source = int(np.flatnonzero(grid.to_source[:3, axis])[0])
    side = shape[source]
    positions = grid.to_source[source, axis] * np.arange(grid.shape[axis]) + grid.to_source[source, 3]
    within = np.clip(positions, 0, side - 1)
    low = np.floor(within).astype(np.int64)
    return _AxisSampling(
        source=source,
        low=low,
        high=np.minimum(low + 1, side - 1),
        weight=within - low,
        is_inside=(positions >= -0.5) & (positions < side - 0.5),
    )


def _sampled_range(axis: _AxisSampling) -> slice:
    """Return the part of the stored axis that is read."""
    return slice(int(axis.low.min()), int(axis.high.max()) + 1)


def _read_planes(
    stored: Array, low: NDArray[np.int64], high: NDArray[np.int64], dtype: type[np.floating[Any]]
) -> tuple[Array, Array]:
    """Return the stored planes below and above each output plane, each read once."""
    needed, places = np.unique(np.concatenate([low, high]), return_inverse=True)
    read = np.ascontiguousarray(stored[needed], dtype)
    return read.take(places[: low.size], axis=0), read.take(places[low.size :], axis=0)


def _lerp(one: Array, other: Array, weight: Array) -> Array:
    """Return the interpolation, in the memory of `other`; between equal values it is exactly that value."""
    other -= one
    other *= weight
    other += one
    return other
