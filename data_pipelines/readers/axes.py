"""Which array axes an image may have, and what becomes of a fourth one."""

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from voxlift.data_pipelines.volume import Affine, Array, VolumeError

TimeAxis = Literal["error", "channels", "depth", "first"]
"""What becomes of a fourth axis: refused, channels, depth (a cine of one slice), or its first volume."""


def check_time_axis(time_axis: str) -> None:
    """Pass when `time_axis` is one of the four choices.

    Raises:
        ValueError: It is not.
    """
    if time_axis not in get_args(TimeAxis):
        raise ValueError(f"time_axis is {time_axis!r}; expected one of {', '.join(get_args(TimeAxis))}.")


def image_shape(shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """Return the shape without singleton axes beyond the third: three axes, or four with time last.

    Args:
        shape: As the header says, (i, j, k, ...).
        path: The file, for the message.

    Raises:
        VolumeError: The image is not a volume, or has more than one axis beyond the third.
    """
    if any(side < 1 for side in shape):
        raise VolumeError(f"{path}: the header's shape {_times(shape)} has an axis without voxels.")
    if len(shape) < 3:
        raise VolumeError(
            f"{path}: expected a volume with three axes, received a {len(shape)}D image of {_times(shape)}."
            " Stack the slices into one file first."
        )
    kept = shape[:3] + tuple(side for side in shape[3:] if side != 1)
    if len(kept) > 4:
        raise VolumeError(
            f"{path}: expected three axes, or four with time or channels, received {_times(shape)}."
            " Split the file along its last axis."
        )
    return kept


def needed_shape(shape: tuple[int, ...], time_axis: str, path: Path) -> tuple[int, ...]:
    """Return the part of a 3D or 4D shape that has to be decoded under a choice of `time_axis`.

    Args:
        shape: From `image_shape`.
        time_axis: What becomes of a fourth axis, see `TimeAxis`.
        path: The file, for the message.

    Raises:
        VolumeError: A fourth axis under "error", or "depth" where the image has more than one slice.
    """
    check_time_axis(time_axis)
    if len(shape) == 3:
        return shape
    if time_axis == "error":
        raise VolumeError(
            f"{path}: the image has four axes ({_times(shape)}). Say what the fourth is:"
            " data.time_axis=channels, data.time_axis=depth (a cine of one slice) or data.time_axis=first"
            " (its first volume only)."
        )
    if time_axis == "depth" and shape[2] != 1:
        raise VolumeError(
            f"{path}: data.time_axis=depth needs a cine of one slice, received {_times(shape)}."
            " Use data.time_axis=channels or data.time_axis=first."
        )
    return shape[:3] if time_axis == "first" else shape


def fold_time(voxels: Array, affine: Affine, time_axis: str) -> tuple[Array, Affine]:
    """Return voxels and affine with the fourth axis in its chosen place.

    Under "depth" the frames of one slice become the third axis. Time has no place in the scanner's world,
    so the affine then is a plain one: the slice's own spacing, 1 mm from frame to frame, depth = time for
    every subject.

    Args:
        voxels: `[i, j, k]` or `[i, j, k, t]`.
        affine: 4x4, index -> mm.
        time_axis: A choice that `needed_shape` let pass.
    """
    if voxels.ndim == 3 or time_axis == "channels":
        return voxels, affine
    if time_axis == "first":
        return voxels[..., 0], affine
    in_plane = np.linalg.norm(affine[:3, :2], axis=0)
    return voxels[:, :, 0, :], np.diag([*in_plane, 1.0, 1.0])


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)
