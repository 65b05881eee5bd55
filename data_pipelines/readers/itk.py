"""NRRD, MetaImage and single DICOM files through SimpleITK; and whatever else ITK reads."""

import math
from pathlib import Path

import numpy as np
import SimpleITK

from voxlift.data_pipelines.readers.axes import fold_time, image_shape, needed_shape
from voxlift.data_pipelines.readers.checks import check_affine, check_dtype, native
from voxlift.data_pipelines.readers.inflate import DEFLATE_LIMIT, MAX_BYTES, peek
from voxlift.data_pipelines.volume import Affine, Array, Stored, VolumeError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM and ITK count towards the patient's left and back, NIfTI towards right and front."""


def itk_kind(head: bytes) -> str | None:
    """Return "nrrd", "metaimage" or "dicom" if the bytes start such a file, otherwise None."""
    if head[:4] == b"NRRD":
        return "nrrd"
    if head[128:132] == b"DICM":
        return "dicom"
    text = head[:256].lstrip()
    return "metaimage" if text.startswith((b"ObjectType", b"NDims", b"Comment")) else None


def read_itk(path: Path, *, kind: str, time_axis: str = "error") -> Stored:
    """Return an image that SimpleITK reads, its scaling applied and its world turned from LPS to RAS+.

    Args:
        path: The file (or the header beside its data file).
        kind: What the content says it is; kept in the result.
        time_axis: What becomes of a fourth axis or of several components, see `readers.axes.TimeAxis`.

    Raises:
        VolumeError: The file is no volume, is damaged, or claims more than it holds.
    """
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        shape = _check_claim(reader, path)
        needed_shape(shape, time_axis, path)
        if kind == "dicom" and shape[2] == 1:
            raise VolumeError(
                f"{path}: this is one DICOM slice. Give the folder that holds the whole series."
            )
        image = reader.Execute()
    except RuntimeError as error:
        raise VolumeError(f"{path}: not readable as {kind} ({itk_reason(error)}).") from error
    affine = affine_of_image(image)
    check_affine(affine, path)
    voxels, affine = fold_time(array_of_image(image).reshape(shape, order="A"), affine, time_axis)
    return Stored(native(voxels), affine, path, kind, header_shape=shape)


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


def itk_reason(error: Exception) -> str:
    """Return the last telling line of one of ITK's long messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][-160:] if lines else "no reason given"


def _check_claim(reader: SimpleITK.ImageFileReader, path: Path) -> tuple[int, ...]:
    """Return the shape that the header claims, refused if the file cannot hold it or it is no volume."""
    components = int(reader.GetNumberOfComponents())
    pixel = SimpleITK.GetPixelIDValueAsString(reader.GetPixelIDValue())
    if "complex" in pixel:
        check_dtype(np.dtype(np.complex64), path)
    if components in (3, 4) and "8-bit unsigned" in pixel:
        check_dtype(np.dtype([(name, "u1") for name in "RGBA"[:components]]), path)
    shape = tuple(int(side) for side in reader.GetSize())
    claimed = components * _bytes_per_number(pixel) * math.prod(shape)
    header = peek(path, 65536).lower()
    packed = not (b"encoding: raw" in header or b"compresseddata = false" in header)
    if claimed > min(_held(path, header) * (DEFLATE_LIMIT if packed else 1), MAX_BYTES):
        raise VolumeError(
            f"{path}: the header claims {claimed:,} bytes of voxels, more than the file can hold or than"
            f" the limit of {MAX_BYTES / 2**30:.0f} GiB. It is cut off or damaged: copy it again."
        )
    kept = image_shape(shape, path)
    if components > 1:
        return image_shape((*kept, components), path)
    return kept


def _bytes_per_number(pixel: str) -> int:
    for bits in (64, 32, 16):
        if f"{bits}-bit" in pixel:
            return bits // 8
    return 1


def _held(path: Path, header: bytes) -> int:
    """Return the bytes that can hold the voxels: the file's own, or its folder's for a lone header."""
    detached = b"data file:" in header or (
        b"elementdatafile" in header and b"elementdatafile = local" not in header
    )
    if not detached:
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
