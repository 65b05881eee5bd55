"""What one image file is: read once, reduced to plain numbers, its voxels hashed."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.geometry import (
    axcodes_of,
    corners_off_mm,
    directions_of,
    is_sheared,
    ras_geometry,
    reorient_grid,
    stored_grid,
)
from voxlift.data_pipelines.preprocess.resample import resample
from voxlift.data_pipelines.readers import read_stored
from voxlift.data_pipelines.volume import Affine, Array, Stored, VolumeError, real_values

THUMBNAIL = 96
SHEAR = 1e-3


@dataclass(frozen=True, eq=False)
class Facts:
    """One image file in numbers; where `error` is set it could not be read and the rest is empty.

    Attributes:
        path: The file or DICOM folder.
        error: Why it could not be read, "" where it could.
        kind: The format, by content.
        dtype: The stored type.
        shape: Voxels in RAS, ordered (depth, height, width).
        channels: Length of the fourth axis, 1 without one.
        spacing: mm in RAS, ordered (depth, height, width).
        axcodes: Where the stored axes point.
        stored_shape: Voxels along the stored axes (i, j, k).
        affine: 4x4, stored index -> world mm, RAS+.
        tilt_degrees: Largest angle between a stored axis and its closest world axis.
        is_sheared: Whether the stored axes are not at right angles.
        forms_off_mm: How far apart sform and qform place a corner; None unless both are set, infinite where
            the qform is unusable.
        nonfinite: Number of NaN or infinite voxels.
        minimum: Smallest finite real value.
        maximum: Largest finite real value.
        mean: Mean of the finite real values.
        voxel_hash: Hash of the voxels in RAS, the same whatever format, type and axes the file stores.
        notes: What the reader would not pass over in silence.
        thumbnails: A slice each way (axial, coronal, sagittal), uint8, top row first: the middle one, or the
            fullest of a mask.
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
        time_axis: As for reading.
        prefer: As for reading.
        thumbnails: Whether to keep a slice each way.
    """
    path = Path(path)
    try:
        stored = read_stored(path, time_axis=time_axis, prefer=prefer)
    except VolumeError as error:
        return Facts(path, error=str(error))
    voxels = _in_ras(stored)
    values = real_values(stored)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    empty = finite.size == 0
    ras_shape, ras_spacing = ras_geometry(stored.voxels.shape, stored.affine)
    return Facts(
        path=path,
        kind=stored.kind,
        dtype=stored.voxels.dtype.name,
        shape=ras_shape,
        channels=voxels.shape[3] if voxels.ndim == 4 else 1,
        spacing=ras_spacing,
        axcodes=axcodes_of(stored.affine),
        stored_shape=tuple(stored.voxels.shape[:3]),
        affine=stored.affine,
        tilt_degrees=_tilt(stored.affine),
        is_sheared=is_sheared(stored.affine, tolerance=SHEAR),
        forms_off_mm=_forms_off(stored),
        nonfinite=int(values.size - finite.size),
        minimum=0.0 if empty else float(finite.min()),
        maximum=0.0 if empty else float(finite.max()),
        mean=0.0 if empty else float(finite.mean(dtype=np.float64)),
        voxel_hash=_hash(voxels, stored),
        notes=stored.notes,
        thumbnails=_thumbnails(stored, ras_spacing) if thumbnails else (),
    )


def hash_voxels(path: str | Path, *, time_axis: str = "error", prefer: str = "sform") -> str:
    """Return a hash of an image's real voxels in RAS, whatever format, type and axes it is stored in.

    Two files with the same hash show the same picture. Spacing and place do not enter: a copy with an edited
    header is a copy.

    Args:
        path: The file or DICOM folder.
        time_axis: As for reading.
        prefer: As for reading.

    Raises:
        VolumeError: The file cannot be read.
    """
    stored = read_stored(path, time_axis=time_axis, prefer=prefer)
    return _hash(_in_ras(stored), stored)


def _in_ras(stored: Stored) -> Array:
    """Return the stored voxels with their axes permuted and flipped to RAS, a view."""
    voxels = stored.voxels
    grid = reorient_grid(stored_grid(voxels.shape), stored.affine)
    order = [int(np.argmax(np.abs(grid.to_source[:3, axis]))) for axis in range(3)]
    flips = tuple(
        slice(None, None, int(np.sign(grid.to_source[source, axis]))) for axis, source in enumerate(order)
    )
    view: Array = voxels.transpose([*order, *range(3, voxels.ndim)])[flips]
    return view


def _hash(voxels: Array, stored: Stored) -> str:
    # One type for all: 7 stored as uint8 and 7.0 stored as float64 are the same voxel, and -0.0 becomes 0.0.
    with np.errstate(over="ignore", invalid="ignore"):
        values = voxels.astype(np.float64) if stored.is_scaled else voxels
        values = (values * stored.slope + stored.inter if stored.is_scaled else values).astype(np.float32)
    values = np.asfortranarray(values) + np.float32(0)
    digest = hashlib.blake2b(str(values.shape).encode(), digest_size=16)
    digest.update(np.where(np.isnan(values), np.float32(np.nan), values).T.tobytes())
    return digest.hexdigest()


def _tilt(affine: Affine) -> float:
    closest = np.abs(directions_of(affine)).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(closest, -1, 1))).max())


def _forms_off(stored: Stored) -> float | None:
    if stored.sform is None or stored.qform is None:
        return None
    off = corners_off_mm(stored.sform, stored.qform, stored.voxels.shape)
    return off if np.isfinite(off) else float("inf")


def _thumbnails(stored: Stored, spacing: tuple[float, ...]) -> tuple[NDArray[np.uint8], ...]:
    """Return an axial, a coronal and a sagittal slice, square pixels, grey from percentile 1 to 99."""
    volume = stored.voxels if stored.voxels.ndim == 3 else stored.voxels[..., 0]
    grid = reorient_grid(stored_grid(volume.shape), stored.affine)
    values = resample(volume, grid) * np.float32(np.sign(stored.slope))
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = np.percentile(values.ravel(order="K")[:: max(1, values.size // 100_000)], [1, 99])
    grey = np.clip((values - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    mm = np.array(spacing[::-1])
    away = np.abs(values - low)
    shown = [_telling_slice(away, axis, is_sparse=bool(high == low)) for axis in range(3)]
    return tuple(_square(np.take(grey, shown[axis], axis=axis), np.delete(mm, axis)) for axis in (2, 1, 0))


def _telling_slice(away: NDArray[np.float32], axis: int, *, is_sparse: bool) -> int:
    """Return the middle slice along an axis, or the fullest one where the ground covers nearly all.

    Args:
        away: How far each voxel is from the ground.
        axis: Along which to look.
        is_sparse: Whether nearly all voxels are ground, as in a mask.
    """
    middle: int = away.shape[axis] // 2
    if not is_sparse and np.take(away, middle, axis=axis).any():
        return middle
    fullness = away.sum(axis=tuple({0, 1, 2} - {axis}), dtype=np.float64)
    return int(fullness.argmax()) if fullness.any() else middle


def _square(pixels: NDArray[np.uint8], mm: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a slice as rows (top first) and columns of square pixels, its longer side `THUMBNAIL`."""
    extent = np.array(pixels.shape) * mm
    sides = np.maximum(1, np.round(extent / extent.max() * THUMBNAIL)).astype(int)
    pick = [
        np.minimum((np.arange(new) + 0.5) / new * old, old - 1).astype(int)
        for new, old in zip(sides, pixels.shape, strict=True)
    ]
    picture: NDArray[np.uint8] = pixels[np.ix_(*pick)].T[::-1]
    return np.ascontiguousarray(picture)
