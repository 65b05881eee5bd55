"""Read FreeSurfer's MGH and MGZ."""

from pathlib import Path

import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader

from voxlift.data_pipelines.readers.decompress import read_head, read_voxels
from voxlift.data_pipelines.readers.header_checks import (
    check_affine,
    fold_time_axis,
    image_shape,
    shape_to_decode,
    to_native_dtype,
)
from voxlift.data_pipelines.volume import Affine, Stored, VolumeError

DATA_OFFSET = 284
NO_ORIENTATION = "the header sets no orientation: FreeSurfer's default is assumed"
_DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}


def is_mgh(head: bytes) -> bool:
    """Return whether the bytes start an MGH header: version 1, four positive sides, a type of at most 64."""
    if len(head) < DATA_OFFSET:
        return False
    version, *sides, code = np.frombuffer(head, ">i4", count=6).tolist()
    return version == 1 and all(side >= 1 for side in sides) and 0 <= code <= 64


def read_mgh(path: Path, *, time_axis: str = "error") -> Stored:
    """Return an MGH or MGZ image as stored.

    Args:
        path: The file, gzip or not.
        time_axis: What several frames become, see `readers.header_checks.TimeAxis`.

    Raises:
        VolumeError: The file is no volume, is damaged, or claims more than it holds.
    """
    header = MGHHeader(read_head(path, DATA_OFFSET), check=False)
    code = int(header["type"])
    if code not in _DTYPES:
        raise VolumeError(f"{path}: the MGH header's type code is {code}; expected one of {list(_DTYPES)}.")
    dtype = np.dtype(_DTYPES[code])
    stored_shape = tuple(int(side) for side in header["dims"])
    shape = shape_to_decode(image_shape(stored_shape, path), time_axis, path)
    affine = _affine_of(header)
    check_affine(affine, path)
    stored = read_voxels(path, DATA_OFFSET, shape=shape, dtype=dtype)
    voxels, affine = fold_time_axis(stored, affine, time_axis)
    notes = () if header["goodRASFlag"] else (NO_ORIENTATION,)
    return Stored(to_native_dtype(voxels), affine, path, "mgh", header_shape=stored_shape, notes=notes)


def _affine_of(header: MGHHeader) -> Affine:
    """Return index -> RAS mm in float64: directions times spacing, the middle voxel at the stored centre."""
    affine = np.eye(4)
    with np.errstate(invalid="ignore"):
        affine[:3, :3] = header["Mdc"].astype(np.float64).T * header["delta"].astype(np.float64)
        affine[:3, 3] = header["Pxyz_c"] - affine[:3, :3] @ header["dims"][:3].astype(np.float64) / 2
    return affine
