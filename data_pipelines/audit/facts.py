"""Describe one image file in numbers, read once: header, voxel statistics, a hash and thumbnails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.geometry import (
    axcodes_of,
    corner_distance_mm,
    directions_of,
    is_sheared,
    ras_geometry,
    reorient_grid,
    stored_grid,
)
from voxlift.data_pipelines.preprocess.auto import MASK_LABELS
from voxlift.data_pipelines.preprocess.resample import resample
from voxlift.data_pipelines.readers import read_stored
from voxlift.data_pipelines.readers.identity import hash_image
from voxlift.data_pipelines.volume import Affine, Stored, VolumeError, real_values

THUMBNAIL_PIXELS = 96
SHEAR_TOLERANCE = 1e-3
MASK_MEAN_FRACTION = 0.25  # of the maximum: masks are mostly background
MOST_FILES = 0.9


@dataclass(frozen=True, eq=False)
class Facts:
    """The facts of one image file; where `error` is set it could not be read and the rest is empty.

    Attributes:
        path: The file or DICOM folder.
        error: Why it could not be read, "" where it could.
        kind: The format, by content.
        dtype: The stored type.
        shape: Voxels in RAS, ordered (depth, height, width).
        channels: Length of the fourth axis, 1 without one.
        spacing: mm in RAS, ordered (depth, height, width).
        axcodes: Directions of the stored axes.
        stored_shape: Voxels along the stored axes (i, j, k).
        affine: 4x4, stored index -> world mm, RAS+.
        tilt_degrees: Largest angle between a stored axis and its closest world axis.
        is_sheared: Whether the stored axes are not at right angles.
        forms_off_mm: Distance between the positions that sform and qform give a corner; None unless both are
            set, infinite where the qform is unusable.
        nonfinite: Number of NaN or infinite voxels.
        minimum: Smallest finite real value.
        maximum: Largest finite real value.
        mean: Mean of the finite real values.
        voxel_hash: Hash of the voxels in RAS, the same whatever format, type and axes the file stores.
        notes: Warnings of the reader, such as a guessed orientation.
        thumbnails: A slice in each plane (axial, coronal, sagittal), uint8, top row first: the middle one, or
            the fullest of a mask.
    """

    path: Path
    error: str = ""
    kind: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    channels: int = 0
    spacing: tuple[float, ...] = ()
    axcodes: str = ""
    stored_shape: tuple[int, ...] = ()
    affine: Affine = field(default_factory=lambda: np.eye(4))
    tilt_degrees: float = 0.0
    is_sheared: bool = False
    forms_off_mm: float | None = None
    nonfinite: int = 0
    minimum: float = 0.0
    maximum: float = 0.0
    mean: float = 0.0
    voxel_hash: str = ""
    notes: tuple[str, ...] = ()
    thumbnails: tuple[NDArray[np.uint8], ...] = ()


def read_facts(
    path: str | Path, *, time_axis: str = "error", prefer: str = "sform", thumbnails: bool = False
) -> Facts:
    """Return the facts of an image; a file that cannot be read is a fact too, not an exception.

    Args:
        path: The file or DICOM folder.
        time_axis: As in `readers.load_volume`.
        prefer: As in `readers.load_volume`.
        thumbnails: Whether to keep a slice in each plane.
    """
    path = Path(path)
    try:
        stored = read_stored(path, time_axis=time_axis, prefer=prefer)
    except VolumeError as error:
        return Facts(path, error=str(error))
    values = real_values(stored)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    empty = finite.size == 0
    ras_shape, ras_spacing = ras_geometry(stored.voxels.shape, stored.affine)
    return Facts(
        path=path,
        kind=stored.kind,
        dtype=stored.voxels.dtype.name,
        shape=ras_shape,
        channels=stored.voxels.shape[3] if stored.voxels.ndim == 4 else 1,
        spacing=ras_spacing,
        axcodes=axcodes_of(stored.affine),
        stored_shape=tuple(stored.voxels.shape[:3]),
        affine=stored.affine,
        tilt_degrees=tilt_degrees(stored.affine),
        is_sheared=is_sheared(stored.affine, tolerance=SHEAR_TOLERANCE),
        forms_off_mm=_forms_off_mm(stored),
        nonfinite=int(values.size - finite.size),
        minimum=0.0 if empty else float(finite.min()),
        maximum=0.0 if empty else float(finite.max()),
        mean=0.0 if empty else float(finite.mean(dtype=np.float64)),
        voxel_hash=hash_image(stored),
        notes=stored.notes,
        thumbnails=_thumbnails(stored, ras_spacing) if thumbnails else (),
    )


def are_masks(files: Sequence[Facts]) -> bool:
    """Return whether nearly all files are masks: zero almost everywhere, a few small values elsewhere."""
    varied = [one for one in files if not one.error and one.minimum < one.maximum]
    masks = [one for one in varied if one.minimum == 0 and one.maximum <= MASK_LABELS]
    sparse = [one for one in masks if one.mean < MASK_MEAN_FRACTION * one.maximum]
    return bool(varied) and len(sparse) > MOST_FILES * len(varied)


def tilt_degrees(affine: Affine) -> float:
    """Return the largest angle between a stored axis and its closest world axis."""
    closest = np.abs(directions_of(affine)).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(closest, -1, 1))).max())


def _forms_off_mm(stored: Stored) -> float | None:
    if stored.sform is None or stored.qform is None:
        return None
    distance = corner_distance_mm(stored.sform, stored.qform, stored.voxels.shape)
    return distance if np.isfinite(distance) else float("inf")


def _thumbnails(stored: Stored, spacing: tuple[float, ...]) -> tuple[NDArray[np.uint8], ...]:
    """Return an axial, a coronal and a sagittal slice, square pixels, grey from percentile 1 to 99.

    Args:
        stored: The image.
        spacing: mm in RAS, ordered (depth, height, width).
    """
    volume = stored.voxels if stored.voxels.ndim == 3 else stored.voxels[..., 0]
    grid = reorient_grid(stored_grid(volume.shape), stored.affine)
    values = resample(volume, grid) * np.float32(np.sign(stored.slope))  # [R, A, S]
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = np.percentile(values.ravel(order="K")[:: max(1, values.size // 100_000)], [1, 99])
    grey = np.clip((values - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    mm = np.array(spacing[::-1])
    contrast = np.abs(values - low)
    shown = [_choose_slice(contrast, axis, is_sparse=bool(high == low)) for axis in range(3)]
    return tuple(
        _to_square_pixels(np.take(grey, shown[axis], axis=axis), np.delete(mm, axis)) for axis in (2, 1, 0)
    )


def _choose_slice(contrast: NDArray[np.float32], axis: int, *, is_sparse: bool) -> int:
    """Return the middle slice along an axis, or the fullest one where the background covers nearly all.

    Args:
        contrast: Difference of each voxel from the background.
        axis: The axis to choose a slice of.
        is_sparse: Whether nearly all voxels are background, as in a mask.
    """
    middle: int = contrast.shape[axis] // 2
    if not is_sparse and np.take(contrast, middle, axis=axis).any():
        return middle
    fullness = contrast.sum(axis=tuple({0, 1, 2} - {axis}), dtype=np.float64)
    return int(fullness.argmax()) if fullness.any() else middle


def _to_square_pixels(pixels: NDArray[np.uint8], mm: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a slice as rows (top first) and columns of square pixels, its longer side `THUMBNAIL_PIXELS`."""
    extent = np.array(pixels.shape) * mm
    sides = np.maximum(1, np.round(extent / extent.max() * THUMBNAIL_PIXELS)).astype(int)
    nearest = [
        np.minimum((np.arange(new) + 0.5) / new * old, old - 1).astype(int)
        for new, old in zip(sides, pixels.shape, strict=True)
    ]
    thumbnail: NDArray[np.uint8] = pixels[np.ix_(*nearest)].T[::-1]
    return np.ascontiguousarray(thumbnail)
