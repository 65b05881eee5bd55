"""Arrays back into files, over the image that they came from."""

from pathlib import Path

import nibabel as nib
import numpy as np

from voxlift.data_pipelines.geometry import Grid, from_tensor_axes, is_sheared
from voxlift.data_pipelines.preprocess.resample import resample
from voxlift.data_pipelines.readers import read_stored
from voxlift.data_pipelines.volume import Affine, Array, Volume, VolumeError

SCANNER = 1
ORTHOGONAL = 1e-4
_TYPES = {"uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"}


def save_volume(volume: Volume, path: str | Path) -> Path:
    """Write a volume as NIfTI-1 (`.nii` or `.nii.gz`) and return its path.

    Both sform and qform are set, so that every viewer shows the same place; a sheared affine, which a qform
    cannot hold, goes into the sform alone.

    Args:
        volume: Voxels `[i, j, k]` or `[i, j, k, c]`; bool is written as uint8, float16 as float32.
        path: Where to. An existing file is replaced.

    Raises:
        VolumeError: The name does not end in .nii or .nii.gz, or the voxels are not real numbers.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise VolumeError(f"{path}: a volume is written as NIfTI. End the name in .nii.gz or .nii.")
    image = _to_image(volume, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def volume_bytes(volume: Volume) -> bytes:
    """Return what an uncompressed `.nii` file of a volume would hold, see `save_volume`.

    Raises:
        VolumeError: The voxels are not real numbers.
    """
    return bytes(_to_image(volume, volume.source).to_bytes())


def _to_image(volume: Volume, path: Path) -> nib.Nifti1Image:
    image = nib.Nifti1Image(_writable(volume.voxels, path), volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code=SCANNER)
    image.set_qform(volume.affine, code=0 if is_sheared(volume.affine, tolerance=ORTHOGONAL) else SCANNER)
    return image


def onto_source(
    voxels: Array, affine: Affine, source: str | Path, *, interpolation: str = "linear", prefer: str = "sform"
) -> Volume:
    """Return an array of the prepared grid on the stored grid of the image it came from.

    Args:
        voxels: `[depth, height, width]` (a tensor without channels, a heat map, a mask), real.
        affine: Of the prepared grid, as `prepare_volume` gave it.
        source: The image file or DICOM folder to lie over.
        interpolation: "linear" or "nearest" (masks).
        prefer: As the image was read.

    Returns:
        float32 `[i, j, k]` with the source's shape and affine; 0 where the prepared grid does not reach.

    Raises:
        VolumeError: The source cannot be read.
    """
    stored = read_stored(source, time_axis="first", prefer=prefer)
    shape = stored.voxels.shape
    grid = Grid((shape[0], shape[1], shape[2]), np.linalg.inv(affine) @ stored.affine)
    values = resample(from_tensor_axes(voxels), grid, interpolation=interpolation)
    return Volume(values, stored.affine, Path(source))


def save_over(
    voxels: Array,
    affine: Affine,
    source: str | Path,
    path: str | Path,
    *,
    interpolation: str = "linear",
    prefer: str = "sform",
) -> Path:
    """Write `[depth, height, width]` voxels of a prepared grid so that they open over their source image.

    Args:
        voxels: As for `onto_source`.
        affine: Of the prepared grid.
        source: The image file or DICOM folder to lie over.
        path: Where to, ending in .nii or .nii.gz; an existing file is replaced.
        interpolation: "linear" or "nearest" (masks).
        prefer: As the image was read.

    Returns:
        The path.

    Raises:
        VolumeError: The source cannot be read, or the name does not end in .nii or .nii.gz.
    """
    over = onto_source(voxels, affine, source, interpolation=interpolation, prefer=prefer)
    return save_volume(over, path)


def _writable(voxels: Array, path: Path) -> Array:
    if voxels.dtype.kind == "b":
        return voxels.astype(np.uint8)
    if voxels.dtype == np.float16:
        return voxels.astype(np.float32)
    if voxels.dtype.name not in _TYPES:
        raise VolumeError(f"{path}: expected real voxels to write, received {voxels.dtype}.")
    return voxels
