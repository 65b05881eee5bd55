"""Measure masks or images in numbers that a regression can take: volume, surface, mean and percentiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxlift.data_pipelines.geometry import is_same_grid, spacing_of
from voxlift.data_pipelines.preprocess.auto import recognise_kind
from voxlift.data_pipelines.preprocess.foreground import foreground_threshold
from voxlift.data_pipelines.preprocess.region import INSIDE, read_mask
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.readers import read_stored
from voxlift.data_pipelines.tables.manifest import Record
from voxlift.data_pipelines.volume import VolumeError, real_values

MEASURES = ("volume_ml", "surface_cm2", "mean", "p05", "p50", "p95")
PERCENTILES = (5, 50, 95)


def measure_record(
    record: Record, *, time_axis: str = "error", prefer: str = "sform"
) -> dict[str, float | str]:
    """Return the measures of a record; empty cells for what cannot be measured.

    Volume and surface are those of the record's mask, else of the image where it is a mask itself, else of
    the foreground. Mean and percentiles are over the first image inside of that; of a mask on another grid
    than the image they are empty.

    Args:
        record: Its first image is measured.
        time_axis: As in `readers.load_volume`; of a fourth axis the first image counts.
        prefer: As in `readers.load_volume`.
    """
    try:
        return _measure(record, Preprocess(time_axis=time_axis, prefer=prefer))
    except VolumeError:
        return dict.fromkeys(MEASURES, "")


def describe_lost_record(_record: Record, _problem: str) -> dict[str, float | str]:
    """Return empty cells for a record that ended every process which measured it."""
    return dict.fromkeys(MEASURES, "")


def _measure(record: Record, settings: Preprocess) -> dict[str, float | str]:
    stored = read_stored(record.images[0], time_axis=settings.time_axis, prefer=settings.prefer)
    values = np.asarray(real_values(stored), np.float64)
    values = values[..., 0] if values.ndim == 4 else values
    finite = np.isfinite(values)
    if not finite.any():
        raise VolumeError(f"{stored.source}: every voxel is NaN or infinite.")
    affine, inside = stored.affine, finite & _is_content(np.where(finite, values, values[finite].min()))
    has_values = True
    if record.region is not None and record.region.mask is not None:
        mask = read_mask(record.region.mask, settings)
        affine, inside = mask.affine, mask.inside
        has_values = is_same_grid(inside.shape, affine, values.shape, stored.affine)
    spacing = spacing_of(affine)[::-1]
    selected = values[inside & finite] if has_values else values[:0].ravel()
    volume = float(inside.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000)
    return {
        "volume_ml": round(volume, 4),
        "surface_cm2": round(surface_mm2(inside, spacing) / 100, 4),
        **_describe_values(selected),
    }


def _is_content(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which voxels of an image belong to its mask or its foreground."""
    is_mask = recognise_kind(values) == "mask"
    return np.asarray(values >= INSIDE if is_mask else values > foreground_threshold(values))


def _describe_values(selected: NDArray[np.float64]) -> dict[str, float | str]:
    if selected.size == 0:
        return dict.fromkeys(MEASURES[2:], "")
    numbers = [selected.mean(), *np.percentile(selected, PERCENTILES)]
    return {name: float(f"{number:.6g}") for name, number in zip(MEASURES[2:], numbers, strict=True)}


def surface_mm2(inside: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """Return the surface of a mask in square millimetres.

    It is the integral of the gradient's magnitude of the smoothed mask, which, unlike the area of voxel
    faces, does not depend on how the surface lies on the grid. Corners are rounded by about a voxel.

    Args:
        inside: Bool `[i, j, k]`.
        spacing: mm, in the order of the axes.

    Source:
        Federer 1959, the coarea formula, doi:10.1090/S0002-9947-1959-0110078-1.
    """
    if not inside.any():
        return 0.0
    sigma = max(spacing) / np.array(spacing)
    margin = [int(np.ceil(4 * one)) + 1 for one in sigma]
    (box,) = ndimage.find_objects(inside.astype(np.uint8))
    padded = np.pad(inside[box].astype(np.float64), [(one, one) for one in margin])
    smooth = ndimage.gaussian_filter(padded, sigma, truncate=4)
    gradients = np.gradient(smooth, *spacing)
    return float(np.sqrt(sum(one**2 for one in gradients)).sum() * np.prod(spacing))
