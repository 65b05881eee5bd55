"""Read single DICOM files through SimpleITK, and convert its images."""

import math
from pathlib import Path

import numpy as np
import SimpleITK

from voxlift.data_pipelines.readers.decompress import MAX_BYTES, MAX_DEFLATE_RATIO
from voxlift.data_pipelines.readers.header_checks import (
    check_affine,
    check_dtype,
    fold_time_axis,
    image_shape,
    shape_to_decode,
    to_native_dtype,
)
from voxlift.data_pipelines.volume import LPS_TO_RAS, Affine, Array, Stored, VolumeError


def read_itk(path: Path, *, kind: str, time_axis: str = "error") -> Stored:
    """Return an image that SimpleITK reads, its scaling applied and its world converted from LPS to RAS+.

    Args:
        path: The file (or the header beside its data file).
        kind: The format found by content; kept in the result.
        time_axis: What a fourth axis or several components become, see `readers.header_checks.TimeAxis`.

    Raises:
        VolumeError: The file is no volume, is damaged, or claims more than it holds.
    """
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        shape = _claimed_shape(reader, path)
        shape_to_decode(shape, time_axis, path)
        if kind == "dicom" and shape[2] == 1:
            raise VolumeError(
                f"{path}: this is one DICOM slice. Give the folder that holds the whole series."
            )
        image = reader.Execute()
    except RuntimeError as error:
        raise VolumeError(f"{path}: not readable as {kind} ({shorten_itk_error(error)}).") from error
    affine = affine_of_image(image)
    check_affine(affine, path)
    voxels, affine = fold_time_axis(array_of_image(image).reshape(shape, order="A"), affine, time_axis)
    return Stored(to_native_dtype(voxels), affine, path, kind, header_shape=shape)


def affine_of_image(image: SimpleITK.Image) -> Affine:
    """Return the affine of a SimpleITK image, voxel index -> world millimetres, RAS+."""
    rank = image.GetDimension()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (rank, rank))[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return LPS_TO_RAS @ affine


def array_of_image(image: SimpleITK.Image) -> Array:
    """Return the voxels `[i, j, k]` or `[i, j, k, channels]` of a SimpleITK image."""
    array: Array = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        return np.moveaxis(array, -1, 0).T
    return array.T


def shorten_itk_error(error: Exception) -> str:
    """Return the last line of one of ITK's long messages."""
    if "Unable to determine ImageIO reader" in str(error):
        return "it is cut off or damaged, or holds no image that ITK reads"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][-160:] if lines else "no reason given"


def _claimed_shape(reader: SimpleITK.ImageFileReader, path: Path) -> tuple[int, ...]:
    """Return the shape that the header claims; raise if the file cannot hold it or it is no volume."""
    components = int(reader.GetNumberOfComponents())
    pixel = SimpleITK.GetPixelIDValueAsString(reader.GetPixelIDValue())
    if "complex" in pixel:
        check_dtype(np.dtype(np.complex64), path)
    if components in (3, 4) and "8-bit unsigned" in pixel:
        check_dtype(np.dtype([(name, "u1") for name in "RGBA"[:components]]), path)
    shape = tuple(int(side) for side in reader.GetSize())
    claimed = components * _bytes_per_number(pixel) * math.prod(shape)
    if claimed > min(path.stat().st_size * MAX_DEFLATE_RATIO, MAX_BYTES):
        raise VolumeError(
            f"{path}: the header claims {claimed:,} bytes of voxels, more than the file can hold or than"
            f" the limit of {MAX_BYTES / 1e9:.1f} GB. It is cut off or damaged: copy it again."
        )
    kept = image_shape(shape, path)
    return image_shape((*kept, components), path) if components > 1 else kept


def _bytes_per_number(pixel: str) -> int:
    return next((bits // 8 for bits in (64, 32, 16) if f"{bits}-bit" in pixel), 1)
