"""NIfTI-1 and NIfTI-2, one file or a header and image pair: nibabel's header, one call of igzip."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from voxlift.data_pipelines.readers.axes import fold_time, image_shape, needed_shape
from voxlift.data_pipelines.readers.checks import check_affine, check_dtype, native
from voxlift.data_pipelines.readers.inflate import peek, read_voxels
from voxlift.data_pipelines.volume import Affine, Stored, VolumeError

Prefer = Literal["sform", "qform"]
"""Which of NIfTI's two affines is believed where both are set."""

HEAD_BYTES = 540
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_CIFTI_INTENTS = range(3000, 3100)


@dataclass(frozen=True)
class _Form:
    """One of the ways in which a NIfTI header is laid out."""

    kind: str
    header: type
    size: int
    is_pair: bool


@dataclass(frozen=True, eq=False)
class _Place:
    """The affine that is believed, both that the header sets, and what should not go unsaid about them."""

    affine: Affine
    sform: Affine | None
    qform: Affine | None
    notes: tuple[str, ...]


def nifti_form(head: bytes) -> _Form | None:
    """Return how the bytes are laid out if they start a NIfTI header, otherwise None."""
    if head[344:348] in (b"n+1\0", b"ni1\0"):
        return _Form("nifti1", nib.Nifti1Header, 348, head[344:348] == b"ni1\0")
    if head[4:8] in (b"n+2\0", b"ni2\0"):
        return _Form("nifti2", nib.Nifti2Header, 540, head[4:8] == b"ni2\0")
    return None


def is_analyze(head: bytes) -> bool:
    """Return whether the bytes start an Analyze 7.5 header: NIfTI's size field without its magic."""
    return len(head) >= 348 and head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") and nifti_form(head) is None


def read_nifti(path: Path, *, time_axis: str = "error", prefer: str = "sform") -> Stored:
    """Return a NIfTI image as stored.

    Args:
        path: The `.nii` file, or the header of a pair, gzip or not; judged by its content.
        time_axis: What becomes of a fourth axis, see `readers.axes.TimeAxis`.
        prefer: Which affine is believed where the header sets both.

    Returns:
        Voxels in the stored type, the affine in millimetres (the header's own unit is converted).

    Raises:
        VolumeError: The file is no volume, is damaged, or claims more than it holds.
        ValueError: An unknown choice of `time_axis` or `prefer`.
    """
    if prefer not in get_args(Prefer):
        raise ValueError(f"prefer is {prefer!r}; expected one of {', '.join(get_args(Prefer))}.")
    head = peek(path, HEAD_BYTES)
    form = nifti_form(head)
    if form is None:
        raise VolumeError(f"{path}: expected a NIfTI header, found none.")
    header = _parse(head, form, path)
    shape = _voxel_shape(header, path)
    dtype = _voxel_dtype(header, path)
    place = _place(header, prefer, path)
    data_path = image_of(path) if form.is_pair else path
    needed = needed_shape(shape, time_axis, path)
    voxels = read_voxels(data_path, _offset(header, form, path), shape=needed, dtype=dtype)
    folded, affine = fold_time(voxels, place.affine, time_axis)
    slope, inter = _scale(header, path)
    return Stored(
        native(folded),
        affine,
        path,
        form.kind,
        slope=slope,
        inter=inter,
        header_shape=shape,
        sform=place.sform,
        qform=place.qform,
        notes=place.notes,
    )


def image_of(header_path: Path) -> Path:
    """Return the image file that belongs to the header file of a pair.

    Raises:
        VolumeError: There is none beside it.
    """
    return _sibling(header_path, "hdr", "img")


def header_of(image_path: Path) -> Path | None:
    """Return the header file that belongs to an image file of a pair, None where there is none."""
    try:
        return _sibling(image_path, "img", "hdr")
    except VolumeError:
        return None


def _sibling(path: Path, ours: str, theirs: str) -> Path:
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    stem = name[:-4] if name.lower().endswith(f".{ours}") else name
    wanted = [stem + ending for ending in (f".{theirs}", f".{theirs}.gz")]
    wanted += [stem + ending.upper() for ending in (f".{theirs}", f".{theirs}.gz")]
    for name in wanted:
        if (path.parent / name).is_file():
            return path.parent / name
    raise VolumeError(
        f"{path}: this is one half of a {ours}/{theirs} pair and {wanted[0]} (or .gz) is not beside it."
        " Copy both halves into one folder."
    )


def _parse(head: bytes, form: _Form, path: Path) -> nib.Nifti1Header:
    sizes = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    if len(head) < form.size or form.size not in sizes:
        raise VolumeError(
            f"{path}: the NIfTI header is damaged (its size field should say {form.size})."
            " Copy the file again from its source."
        )
    # The size field names the byte order; nibabel's own guess looks at dim[0], which may be damaged.
    order = "<" if int.from_bytes(head[:4], "little") == form.size else ">"
    header = form.header(head[: form.size], endianness=order, check=False)
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


def _offset(header: nib.Nifti1Header, form: _Form, path: Path) -> int:
    offset = float(header["vox_offset"])
    # Some writers leave the offset at 0 in a single file: the standard's own start is meant.
    least = 0 if form.is_pair else form.size + 4
    if not np.isfinite(offset) or offset < 0 or offset > 2**62:
        raise VolumeError(
            f"{path}: the header says the voxels start at byte {offset:g}. The file is damaged."
        )
    return max(int(offset), least)


def _scale(header: nib.Nifti1Header, path: Path) -> tuple[float, float]:
    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError as error:
        raise VolumeError(f"{path}: the header's scaling is unusable ({error}).") from error
    return (1.0, 0.0) if slope is None else (float(slope), float(inter))


def _place(header: nib.Nifti1Header, prefer: str, path: Path) -> _Place:
    # Absurd numbers overflow on the way: what comes of them is checked at the end.
    with np.errstate(all="ignore"):
        return _choose(header, prefer, path)


def _choose(header: nib.Nifti1Header, prefer: str, path: Path) -> _Place:
    unit = int(header["xyzt_units"]) % 8
    scale = np.diag([_MM_PER_UNIT.get(unit, 1.0)] * 3 + [1.0])
    notes = [] if unit in (0, 2) else [f"voxel sizes stored in unit code {unit}, converted to millimetres"]
    if (header["pixdim"][1:4] < 0).any():
        # As nibabel does: some writers mark a mirrored axis by the sign, which NIfTI does not.
        header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
        notes.append("negative voxel sizes, taken as positive")
    sform = None if int(header["sform_code"]) <= 0 else scale @ header.get_sform()
    qform = None if int(header["qform_code"]) <= 0 else _qform(header, prefer, sform, scale, path)
    first, second = (sform, qform) if prefer == "sform" else (qform, sform)
    chosen = first if first is not None else second
    if chosen is None:
        chosen = scale @ header.get_base_affine()
        notes.append("the header sets neither sform nor qform: left and right are a guess (stored as LAS)")
    affine = np.asarray(chosen, np.float64)
    other = "qform" if prefer == "sform" else "sform"
    both = sform is not None and qform is not None
    check_affine(affine, path, f"Correct the header{f', or set preprocess.prefer={other}' if both else ''}.")
    return _Place(affine, sform, qform, tuple(notes))


def _qform(
    header: nib.Nifti1Header, prefer: str, sform: Affine | None, scale: Affine, path: Path
) -> Affine | None:
    try:
        return np.asarray(scale @ header.get_qform(), np.float64)
    except (HeaderDataError, ValueError) as error:
        if prefer == "sform" and sform is not None:
            # Not believed anyway: the audit reports it as a conflict, since NaN agrees with nothing.
            return np.full((4, 4), np.nan)
        raise VolumeError(f"{path}: the header's qform is unusable ({error}). Correct the header.") from error
