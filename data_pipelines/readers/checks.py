"""What every reader holds its file to: a real-valued type, a usable affine."""

from pathlib import Path

import numpy as np

from voxlift.data_pipelines.volume import Affine, Array, VolumeError

MIN_SPACING_MM = 1e-4
MAX_SPACING_MM = 1e4
MAX_PLACE_MM = 1e9


def check_dtype(dtype: np.dtype[np.generic], path: Path) -> None:
    """Refuse colour, complex and undefined types.

    Args:
        dtype: Of the stored voxels.
        path: The file, for the message.

    Raises:
        VolumeError: Says which of them it is, and the way out.
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


def check_affine(affine: Affine, path: Path, way_out: str = "Correct the header.") -> None:
    """Refuse an affine that does not place voxels in a 3D world.

    Args:
        affine: 4x4, index -> mm.
        path: The file, for the message.
        way_out: What the user can do.

    Raises:
        VolumeError: The affine holds NaN or infinity, an absurd spacing, or flattens the volume.
    """
    if not np.isfinite(affine).all() or np.abs(affine).max() > MAX_PLACE_MM:
        raise VolumeError(f"{path}: the header's affine holds NaN, infinity or absurd numbers. {way_out}")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    shown = " x ".join(f"{mm:.4g}" for mm in spacing)
    if spacing.min() < MIN_SPACING_MM or spacing.max() > MAX_SPACING_MM:
        raise VolumeError(f"{path}: the header's voxel size is {shown} mm. {way_out}")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise VolumeError(
            f"{path}: two voxel axes of the affine point the same way (size {shown} mm). {way_out}"
        )


def native(voxels: Array) -> Array:
    """Return the voxels in the machine's byte order and in a type that every later step knows."""
    if voxels.dtype.kind == "b":
        return voxels.astype(np.uint8)
    if voxels.dtype.kind == "f" and voxels.dtype.itemsize not in (4, 8):
        return voxels.astype(np.float32 if voxels.dtype.itemsize == 2 else np.float64)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
