"""Write arrays as NIfTI files, also on the grid of the image that they come from."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from voxlift.data_pipelines.files import atomic_write
from voxlift.data_pipelines.geometry import Grid, from_tensor_axes, is_sheared
from voxlift.data_pipelines.preprocess.resample import resample
from voxlift.data_pipelines.readers import read_stored
from voxlift.data_pipelines.volume import Affine, Array, Volume, VolumeError

SCANNER_CODE = 1  # of an sform or qform that maps to scanner coordinates
SHEAR_TOLERANCE = 1e-4
NIFTI_TYPES = {
    *("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float32", "float64"),
}


def save_volume(volume: Volume, path: str | Path) -> Path:
    """Write a volume as NIfTI-1 (`.nii` or `.nii.gz`) and return its path.

    Both sform and qform are set, so that every viewer shows the same position; a sheared affine, which a
    qform cannot hold, is written to the sform alone.

    Args:
        volume: Voxels `[i, j, k]` or `[i, j, k, c]`; bool is written as uint8, float16 as float32.
        path: The file to write. An existing file is replaced.

    Raises:
        VolumeError: The name does not end in .nii or .nii.gz, or the voxels are not real numbers.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise VolumeError(
            f"{path}: expected a name that ends in .nii.gz or .nii, since volumes are NIfTI files."
        )
    image = _to_image(volume, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        nib.save(image, temporary)
    return path


def encode_nifti(volume: Volume) -> bytes:
    """Return the content of an uncompressed `.nii` file of a volume, see `save_volume`.

    Raises:
        VolumeError: The voxels are not real numbers.
    """
    return bytes(_to_image(volume, volume.source).to_bytes())


def resample_to_source(
    voxels: Array, affine: Affine, source: str | Path, *, interpolation: str = "linear", prefer: str = "sform"
) -> Volume:
    """Return an array of the prepared grid on the stored grid of the image that it comes from.

    Args:
        voxels: `[depth, height, width]` (a tensor without channels, a heat map, a mask), real.
        affine: Of the prepared grid, as `prepare_volume` returned it.
        source: The image file or DICOM folder that the array comes from.
        interpolation: "linear" or "nearest" (masks).
        prefer: As the image was read.

    Returns:
        float32 `[i, j, k]` with the source's shape and affine; 0 outside the prepared grid.

    Raises:
        VolumeError: The source cannot be read.
    """
    stored = read_stored(source, time_axis="first", prefer=prefer)
    shape = stored.voxels.shape
    grid = Grid((shape[0], shape[1], shape[2]), np.linalg.inv(affine) @ stored.affine)
    values = resample(from_tensor_axes(voxels), grid, interpolation=interpolation)
    return Volume(values, stored.affine, Path(source))


def save_on_source_grid(
    voxels: Array,
    affine: Affine,
    source: str | Path,
    path: str | Path,
    *,
    interpolation: str = "linear",
    prefer: str = "sform",
) -> Path:
    """Write `[depth, height, width]` voxels of a prepared grid as an overlay of their source image.

    Args:
        voxels: As for `resample_to_source`.
        affine: Of the prepared grid.
        source: The image file or DICOM folder that the array comes from.
        path: The file to write, ending in .nii or .nii.gz; an existing file is replaced.
        interpolation: "linear" or "nearest" (masks).
        prefer: As the image was read.

    Returns:
        The path.

    Raises:
        VolumeError: The source cannot be read, or the name does not end in .nii or .nii.gz.
    """
    overlay = resample_to_source(voxels, affine, source, interpolation=interpolation, prefer=prefer)
    return save_volume(overlay, path)


def _to_image(volume: Volume, path: Path) -> nib.Nifti1Image:
    image = nib.Nifti1Image(_to_nifti_type(volume.voxels, path), volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code=SCANNER_CODE)
    has_qform = not is_sheared(volume.affine, tolerance=SHEAR_TOLERANCE)
    image.set_qform(volume.affine, code=SCANNER_CODE if has_qform else 0)
    return image


def _to_nifti_type(voxels: Array, path: Path) -> Array:
    if voxels.dtype.kind == "b":
        return voxels.astype(np.uint8)
    if voxels.dtype == np.float16:
        return voxels.astype(np.float32)
    if voxels.dtype.name not in NIFTI_TYPES:
        raise VolumeError(f"{path}: expected real voxels to write, received {voxels.dtype}.")
    return voxels
