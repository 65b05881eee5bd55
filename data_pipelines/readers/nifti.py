"""Read NIfTI-1 and NIfTI-2, single files and header/image pairs."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from voxlift.data_pipelines.files import is_file
from voxlift.data_pipelines.readers.decompress import is_gzip, read_head, read_voxels
from voxlift.data_pipelines.readers.header_checks import (
    check_affine,
    check_dtype,
    fold_time_axis,
    image_shape,
    shape_to_decode,
    to_native_dtype,
)
from voxlift.data_pipelines.volume import Affine, Stored, VolumeError

Prefer = Literal["sform", "qform"]
"""Which of NIfTI's two affines is used where both are set."""

HEAD_BYTES = 540
ROUNDING = 1e-5
"""Excess of a quaternion's length that rounding explains."""

_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_CIFTI_INTENTS = range(3000, 3100)


@dataclass(frozen=True)
class _Layout:
    """One of the four layouts of a NIfTI header: version 1 or 2, single file or pair."""

    kind: str
    header: type
    size: int
    is_pair: bool


@dataclass(frozen=True, eq=False)
class _Affines:
    """The affine that is used, both that the header sets, and notes on them for the audit."""

    chosen: Affine
    sform: Affine | None
    qform: Affine | None
    notes: tuple[str, ...]


def read_nifti(path: Path, *, time_axis: str = "error", prefer: str = "sform") -> Stored:
    """Return a NIfTI image as stored.

    Args:
        path: The `.nii` file, or the header of a pair, gzip or not; judged by its content.
        time_axis: What a fourth axis becomes, see `readers.header_checks.TimeAxis`.
        prefer: Which affine is used where the header sets both.

    Returns:
        Voxels in the stored type, the affine in millimetres (the header's own unit is converted).

    Raises:
        VolumeError: The file is no volume, is damaged, or claims more than it holds.
        ValueError: An unknown choice of `time_axis` or `prefer`.
    """
    if prefer not in get_args(Prefer):
        raise ValueError(f"prefer is {prefer!r}; expected one of {', '.join(get_args(Prefer))}.")
    head = read_head(path, HEAD_BYTES)
    layout = find_nifti_layout(head)
    if layout is None:
        raise VolumeError(f"{path}: expected a NIfTI header, found none.")
    header = _parse(head, layout, path)
    header_shape = _voxel_shape(header, path)
    dtype = _voxel_dtype(header, path)
    affines = _read_affines(header, prefer, path)
    shape = shape_to_decode(header_shape, time_axis, path)
    data_path, offset, misnamed = _find_voxels(header, layout, path, math.prod(shape) * dtype.itemsize)
    voxels = read_voxels(data_path, offset, shape=shape, dtype=dtype)
    folded, affine = fold_time_axis(voxels, affines.chosen, time_axis)
    slope, inter = _scale(header, path)
    return Stored(
        to_native_dtype(folded),
        affine,
        path,
        layout.kind,
        slope=slope,
        inter=inter,
        header_shape=header_shape,
        sform=affines.sform,
        qform=affines.qform,
        notes=(*affines.notes, *misnamed),
    )


def find_nifti_layout(head: bytes) -> _Layout | None:
    """Return the layout of the NIfTI header that the bytes start, None where they start none."""
    if head[344:348] in (b"n+1\0", b"ni1\0"):
        return _Layout("nifti1", nib.Nifti1Header, 348, head[344:348] == b"ni1\0")
    if head[4:8] in (b"n+2\0", b"ni2\0"):
        return _Layout("nifti2", nib.Nifti2Header, 540, head[4:8] == b"ni2\0")
    return None


def is_analyze(head: bytes) -> bool:
    """Return whether the bytes start an Analyze 7.5 header: NIfTI's size field without its magic."""
    sizes = (b"\x5c\x01\0\0", b"\0\0\x01\x5c")
    return len(head) >= 348 and head[:4] in sizes and find_nifti_layout(head) is None


def is_cut_nifti(head: bytes) -> bool:
    """Return whether the bytes are all of a file that ends within a NIfTI header."""
    sizes = (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c")
    return len(head) < 348 and head[:4] in sizes


def image_of(header_path: Path) -> Path:
    """Return the image file that belongs to the header file of a pair.

    Raises:
        VolumeError: There is none beside it.
    """
    return _find_other_half(header_path, "hdr", "img")


def find_image(header_path: Path) -> Path | None:
    """Return the image file that belongs to the header file of a pair, None where there is none."""
    try:
        return image_of(header_path)
    except VolumeError:
        return None


def header_of(image_path: Path) -> Path | None:
    """Return the header file that belongs to an image file of a pair, None where there is none."""
    try:
        return _find_other_half(image_path, "img", "hdr")
    except VolumeError:
        return None


def _find_other_half(path: Path, own_ending: str, other_ending: str) -> Path:
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    stem = name[:-4] if name.lower().endswith(f".{own_ending}") else name
    endings = (f".{other_ending}", f".{other_ending}.gz")
    wanted = [stem + ending for ending in (*endings, *map(str.upper, endings))]
    for name in wanted:
        if is_file(path.parent / name):
            return path.parent / name
    raise VolumeError(
        f"{path}: this is one half of a {own_ending}/{other_ending} pair and {wanted[0]} (or .gz) is not"
        " beside it. Copy both halves into one folder."
    )


def _parse(head: bytes, layout: _Layout, path: Path) -> nib.Nifti1Header:
    sizes = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    if len(head) < layout.size or layout.size not in sizes:
        raise VolumeError(
            f"{path}: the NIfTI header is damaged (its size field should be {layout.size})."
            " Copy the file again from its source."
        )
    # The size field names the byte order; nibabel's own guess looks at dim[0], which may be damaged.
    order = "<" if int.from_bytes(head[:4], "little") == layout.size else ">"
    header = layout.header(head[: layout.size], endianness=order, check=False)
    if int(header["intent_code"]) in _CIFTI_INTENTS:
        raise VolumeError(
            f"{path}: this is a CIFTI file: a table over brain surfaces, not a volume."
            " Use the NIfTI volume it came from."
        )
    return header


def _voxel_shape(header: nib.Nifti1Header, path: Path) -> tuple[int, ...]:
    rank = int(header["dim"][0])
    if not 1 <= rank <= 7:
        raise VolumeError(
            f"{path}: the header's number of axes is {rank}, expected 1 to 7. The file is damaged."
        )
    return image_shape(tuple(int(side) for side in header["dim"][1 : rank + 1]), path)


def _voxel_dtype(header: nib.Nifti1Header, path: Path) -> np.dtype[np.generic]:
    try:
        dtype: np.dtype[np.generic] = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        code = int(header["datatype"])
        raise VolumeError(f"{path}: the header's data type code {code} is not one of NIfTI's.") from None
    check_dtype(dtype, path)
    return dtype


def _find_voxels(
    header: nib.Nifti1Header, layout: _Layout, path: Path, claimed: int
) -> tuple[Path, int, tuple[str, ...]]:
    """Return the file of the voxels, the byte where they start, and a note if the header misnames it.

    Some writers put the mark of a pair (`ni1`) into a single file, or that of a single file (`n+1`) into the
    header of a pair. The names of the files, and what they can hold, decide.
    """
    if layout.is_pair:
        if _is_single(path, claimed):
            offset = _data_offset(header, layout.size + 4, path)
            return path, offset, ("marked as the header of a pair, read as a single file",)
        return image_of(path), _data_offset(header, 0, path), ()
    other = find_image(path) if path.stat().st_size <= layout.size + 4 else None
    if other is not None and not is_gzip(read_head(path, 2)):
        return other, 0, ("marked as a single file, read as the header of a pair",)
    # Some writers leave the offset at 0 in a single file: the standard's own start is meant.
    return path, _data_offset(header, layout.size + 4, path), ()


def _is_single(path: Path, claimed: int) -> bool:
    """Return whether a file that is marked as the header of a pair holds its voxels itself."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return True
    return path.stat().st_size >= claimed and find_image(path) is None


def _data_offset(header: nib.Nifti1Header, least: int, path: Path) -> int:
    offset = float(header["vox_offset"])
    if not np.isfinite(offset) or offset < 0 or offset > 2**62:
        raise VolumeError(
            f"{path}: the header sets the start of the voxels to byte {offset:g}. The file is damaged."
        )
    return max(int(offset), least)


def _scale(header: nib.Nifti1Header, path: Path) -> tuple[float, float]:
    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError as error:
        raise VolumeError(f"{path}: the header's scaling is unusable ({error}).") from error
    return (1.0, 0.0) if slope is None else (float(slope), float(inter))


def _read_affines(header: nib.Nifti1Header, prefer: str, path: Path) -> _Affines:
    # Absurd numbers overflow on the way: `check_affine` looks at the result.
    with np.errstate(all="ignore"):
        return _choose_affine(header, prefer, path)


def _choose_affine(header: nib.Nifti1Header, prefer: str, path: Path) -> _Affines:
    unit = int(header["xyzt_units"]) % 8
    scale = np.diag([_MM_PER_UNIT.get(unit, 1.0)] * 3 + [1.0])
    notes = [] if unit in (0, 2) else [f"voxel sizes stored in unit code {unit}, converted to millimetres"]
    if (header["pixdim"][1:4] < 0).any():
        # As nibabel does: some writers mark a mirrored axis by the sign, which NIfTI does not.
        header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
        notes.append("negative voxel sizes, taken as positive")
    if int(header["qform_code"]) > 0:
        notes += _repair_quaternion(header)
    sform = None if int(header["sform_code"]) <= 0 else scale @ header.get_sform()
    qform = None if int(header["qform_code"]) <= 0 else _qform(header, prefer, sform, scale, path)
    first, second = (sform, qform) if prefer == "sform" else (qform, sform)
    chosen = first if first is not None else second
    if chosen is None:
        chosen = scale @ header.get_base_affine()
        notes.append("the header sets neither sform nor qform: left and right are a guess (stored as LAS)")
    affine = np.asarray(chosen, np.float64)
    other = "qform" if prefer == "sform" else "sform"
    has_both = sform is not None and qform is not None
    check_affine(
        affine, path, f"Correct the header{f', or set preprocess.prefer={other}' if has_both else ''}."
    )
    return _Affines(affine, sform, qform, tuple(notes))


def _repair_quaternion(header: nib.Nifti1Header) -> list[str]:
    """Make the quaternion one that has a rotation, as the standard and ITK do; return notes on it."""
    notes = []
    sign = float(header["pixdim"][0])
    if sign not in (-1.0, 1.0):
        # The standard takes 0 as 1; ITK takes the sign of any other number.
        header["pixdim"][0] = -1.0 if sign < 0 else 1.0
        notes.append(f"pixdim[0] is {sign:g}, taken as {header['pixdim'][0]:g}")
    names = ("quatern_b", "quatern_c", "quatern_d")
    vector = np.array([float(header[name]) for name in names])
    length = float(np.linalg.norm(vector))
    if np.isfinite(length) and length > 1:
        for name, value in zip(names, vector / length, strict=True):
            header[name] = value
        if length > 1 + ROUNDING:
            notes.append(f"the quaternion of the qform is {length:g} long, taken as 1 as ITK does")
    return notes


def _qform(
    header: nib.Nifti1Header, prefer: str, sform: Affine | None, scale: Affine, path: Path
) -> Affine | None:
    try:
        return np.asarray(scale @ header.get_qform(), np.float64)
    except (HeaderDataError, ValueError) as error:
        if prefer == "sform" and sform is not None:
            # It is not used: NaN agrees with nothing, so that the audit reports the conflict.
            return np.full((4, 4), np.nan)
        raise VolumeError(f"{path}: the header's qform is unusable ({error}). Correct the header.") from error
