"""One resample, straight from the stored grid to the output grid.

The transform is given in index space: SimpleITK then sees two images with unit spacing and no direction, so a
sheared affine, which ITK refuses, is as good as any other.
"""

from typing import Literal

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from voxlift.data_pipelines.geometry import STEADY_VOXELS, Grid
from voxlift.data_pipelines.straight import interpolate_straight, is_straight
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
