"""Check what an image header claims (shape, time axis, voxel type, affine), for all readers alike."""

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from voxlift.data_pipelines.volume import Affine, Array, VolumeError

TimeAxis = Literal["error", "channels", "depth", "first"]
"""What a fourth axis becomes: an error, channels, depth (a cine of one slice), or only its first volume."""

MIN_SPACING_MM = 1e-4
MAX_SPACING_MM = 1e4
MAX_OFFSET_MM = 1e9


def check_time_axis(time_axis: str) -> None:
    """Raise if `time_axis` is not one of the choices of `TimeAxis`.

    Raises:
        ValueError: It is not.
    """
    if time_axis not in get_args(TimeAxis):
        raise ValueError(f"time_axis is {time_axis!r}; expected one of {', '.join(get_args(TimeAxis))}.")


def image_shape(shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """Return the shape without singleton axes beyond the third: three axes, or four with time last.

    Args:
        shape: The header's shape, (i, j, k, ...).
        path: The file, for the message.

    Raises:
        VolumeError: The image is not a volume, or has more than one axis beyond the third.
    """
    if any(side < 1 for side in shape):
        raise VolumeError(f"{path}: the header's shape {_format_shape(shape)} has an axis without voxels.")
    if len(shape) < 3:
        raise VolumeError(
            f"{path}: expected a volume with three axes, received a {len(shape)}D image of"
            f" {_format_shape(shape)}. Stack the slices into one file first."
        )
    kept = shape[:3] + tuple(side for side in shape[3:] if side != 1)
    if len(kept) > 4:
        raise VolumeError(
            f"{path}: expected three axes, or four with time or channels, received {_format_shape(shape)}."
            " Split the file along its last axis."
        )
    return kept


def shape_to_decode(shape: tuple[int, ...], time_axis: str, path: Path) -> tuple[int, ...]:
    """Return the part of a 3D or 4D shape that has to be decoded under a choice of `time_axis`.

    Args:
        shape: From `image_shape`.
        time_axis: What a fourth axis becomes, see `TimeAxis`.
        path: The file, for the message.

    Raises:
        VolumeError: A fourth axis under "error", or "depth" where the image has more than one slice.
    """
    check_time_axis(time_axis)
    if len(shape) == 3:
        return shape
    if time_axis == "error":
        raise VolumeError(
            f"{path}: the image has four axes ({_format_shape(shape)}). Set what the fourth is:"
            " data.time_axis=channels, data.time_axis=depth (a cine of one slice) or data.time_axis=first"
            " (its first volume only)."
        )
    if time_axis == "depth" and shape[2] != 1:
        raise VolumeError(
            f"{path}: data.time_axis=depth needs a cine of one slice, received {_format_shape(shape)}."
            " Use data.time_axis=channels or data.time_axis=first."
        )
    return shape[:3] if time_axis == "first" else shape


def fold_time_axis(voxels: Array, affine: Affine, time_axis: str) -> tuple[Array, Affine]:
    """Return voxels and affine with the fourth axis folded as `time_axis` asks.

    Under "depth" the frames of one slice become the third axis. Time has no direction in the scanner's
    world, so the affine is then a plain one: the slice's own spacing, 1 mm from frame to frame, depth = time
    for every subject.

    Args:
        voxels: `[i, j, k]` or `[i, j, k, t]`.
        affine: 4x4, index -> mm.
        time_axis: A choice that `shape_to_decode` accepted.
    """
    if voxels.ndim == 3 or time_axis == "channels":
        return voxels, affine
    if time_axis == "first":
        return voxels[..., 0], affine
    in_plane = np.linalg.norm(affine[:3, :2], axis=0)
    return voxels[:, :, 0, :], np.diag([*in_plane, 1.0, 1.0])


def check_dtype(dtype: np.dtype[np.generic], path: Path) -> None:
    """Raise if the stored type is colour, complex or undefined.

    Args:
        dtype: Of the stored voxels.
        path: The file, for the message.

    Raises:
        VolumeError: It is; the message names the type and how to convert the file.
    """
    if dtype.names:
        raise VolumeError(
            f"{path}: expected one number per voxel, received colour ({''.join(dtype.names)})."
            " Convert it to grey values, or write one file per channel."
        )
    if dtype.kind == "c":
        raise VolumeError(
            f"{path}: expected real voxels, received complex numbers ({dtype})."
            " Save magnitude (or phase) as its own file."
        )
    if dtype.kind not in "iufb" or dtype.itemsize == 0:
        raise VolumeError(f"{path}: expected integer or float voxels, received type {dtype}.")


def check_affine(affine: Affine, path: Path, how_to_fix: str = "Correct the header.") -> None:
    """Raise if an affine does not map voxels to a 3D world.

    Args:
        affine: 4x4, index -> mm.
        path: The file, for the message.
        how_to_fix: The last sentence of the message.

    Raises:
        VolumeError: The affine holds NaN or infinity, a voxel size beyond the limits, or two parallel axes.
    """
    if not np.isfinite(affine).all() or np.abs(affine).max() > MAX_OFFSET_MM:
        raise VolumeError(
            f"{path}: the header's affine holds NaN, infinity or numbers beyond {MAX_OFFSET_MM:g}."
            f" {how_to_fix}"
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    size = " x ".join(f"{mm:.4g}" for mm in spacing)
    if spacing.min() < MIN_SPACING_MM or spacing.max() > MAX_SPACING_MM:
        raise VolumeError(f"{path}: the header's voxel size is {size} mm. {how_to_fix}")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise VolumeError(
            f"{path}: two voxel axes of the affine point the same way (size {size} mm). {how_to_fix}"
        )


def to_native_dtype(voxels: Array) -> Array:
    """Return the voxels in native byte order; bool becomes uint8, float16 float32, long double float64."""
    if voxels.dtype.kind == "b":
        return voxels.astype(np.uint8)
    if voxels.dtype.kind == "f" and voxels.dtype.itemsize not in (4, 8):
        return voxels.astype(np.float32 if voxels.dtype.itemsize == 2 else np.float64)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)
