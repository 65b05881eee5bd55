"""Load an image of any supported format; the reader is chosen by the file's content, not by its name."""

from pathlib import Path

from voxlift.data_pipelines.files import is_folder
from voxlift.data_pipelines.readers.decompress import is_cut_gzip, read_head
from voxlift.data_pipelines.readers.dicom import read_dicom_file, read_dicom_series
from voxlift.data_pipelines.readers.metaimage import read_metaimage
from voxlift.data_pipelines.readers.mgh import is_mgh, read_mgh
from voxlift.data_pipelines.readers.nifti import (
    HEAD_BYTES,
    find_nifti_layout,
    header_of,
    is_analyze,
    is_cut_nifti,
    read_nifti,
)
from voxlift.data_pipelines.readers.nrrd import read_nrrd
from voxlift.data_pipelines.readers.recognise import find_format
from voxlift.data_pipelines.volume import Stored, Volume, VolumeError, to_volume

_UNSUPPORTED = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"\x89HDF": "an HDF5 or MINC2 file",
    b"CDF\x01": "a MINC1 file",
    b"PK\x03\x04": "a zip or npz archive",
    b"\x93NUMPY": "a NumPy array without an affine",
    b"BZh": "a bzip2 stream",
    b"\xfd7zXZ": "an xz stream",
    b"\x28\xb5\x2f\xfd": "a zstd stream",
    b"version https://git-lfs": "a Git LFS pointer (git lfs pull fetches the file itself)",
    b"/annex/objects": "a git-annex pointer (git annex get fetches the file itself)",
    b"\0\x05\x16\x07": "an AppleDouble file of macOS (the image is the file without ._ in its name)",
    b"<": "a web page or XML",
}
_READERS = {"nrrd": read_nrrd, "metaimage": read_metaimage, "dicom": read_dicom_file}


def load_volume(path: str | Path, *, time_axis: str = "error", prefer: str = "sform") -> Volume:
    """Return the image of a file or DICOM folder as a volume of real values on its stored grid.

    Nothing is reoriented or resampled: see `preprocess.prepare.prepare_volume` for that.

    Args:
        path: NIfTI-1/2 (single file or pair, gzip or not), MGH/MGZ, NRRD, MetaImage, a DICOM file of many
            frames, or the folder of one DICOM series.
        time_axis: What a fourth axis becomes: "error" (refused), "channels", "depth" (the frames of a cine
            of one slice become the third axis, 1 mm apart) or "first" (only its first volume is read).
        prefer: "sform" or "qform": which affine is used where a NIfTI header sets both.

    Returns:
        A `Volume` with `voxels` `[i, j, k]` or `[i, j, k, channels]`, the file's scaling applied (HU for CT;
        NaN and infinity as stored), `affine` 4x4 float64 from voxel index (i, j, k) to world mm, RAS+, and
        `source`, the path.

    Raises:
        VolumeError: The file is no volume, is damaged, claims more than it holds, or does not fit into
            memory.
        ValueError: An unknown choice of `time_axis` or `prefer`.
    """
    return to_volume(read_stored(path, time_axis=time_axis, prefer=prefer))


def read_stored(path: str | Path, *, time_axis: str = "error", prefer: str = "sform") -> Stored:
    """Return an image as its file stores it: voxels in the stored type, the scaling beside them.

    Args:
        path: As for `load_volume`.
        time_axis: As for `load_volume`.
        prefer: As for `load_volume`.

    Returns:
        A `Stored` image, voxels `[i, j, k]` or `[i, j, k, channels]`.

    Raises:
        VolumeError: As for `load_volume`.
        ValueError: As for `load_volume`.
    """
    path = Path(path)
    try:
        return _read(path, time_axis, prefer)
    except MemoryError as error:
        raise VolumeError(f"{path}: the image does not fit into memory.") from error


def _read(path: Path, time_axis: str, prefer: str) -> Stored:
    if is_folder(path):
        return read_dicom_series(path)
    head = read_head(path, HEAD_BYTES)
    if find_nifti_layout(head):
        return read_nifti(path, time_axis=time_axis, prefer=prefer)
    if is_mgh(head):
        return read_mgh(path, time_axis=time_axis)
    kind = find_format(head)
    if kind == "dicomdir":
        raise VolumeError(
            f"{path}: a DICOMDIR lists series and holds no image. Give the folder of one of its series."
        )
    if kind in _READERS:
        return _READERS[kind](path, time_axis=time_axis)
    if is_analyze(head):
        raise VolumeError(
            f"{path}: this is Analyze 7.5, which does not store left and right. Convert it to NIfTI with a"
            " tool that knows its scanner."
        )
    return _read_pair_by_image(path, head, time_axis, prefer)


def _read_pair_by_image(path: Path, head: bytes, time_axis: str, prefer: str) -> Stored:
    """Return the image of a pair from its data half, which has no magic of its own."""
    header = header_of(path) if path.name.lower().endswith((".img", ".img.gz")) else None
    if header is None:
        found = next((what for magic, what in _UNSUPPORTED.items() if head.startswith(magic)), "none of them")
        if is_cut_gzip(path, HEAD_BYTES):
            found = "a gzip stream that is cut off or damaged"
        elif is_cut_nifti(head):
            found = f"the first {len(head)} bytes of a NIfTI header: the file is cut off"
        fix = (
            "Write all slices of the scan into one NIfTI file, with their spacing"
            if found.endswith("picture")
            else "Convert it to NIfTI, or copy it again if it should be one of these"
        )
        raise VolumeError(f"{path}: expected NIfTI, MGH, NRRD, MetaImage or DICOM, found {found}. {fix}.")
    if not find_nifti_layout(read_head(header, HEAD_BYTES)):
        raise VolumeError(f"{path}: its header {header.name} is not NIfTI. Convert the pair to NIfTI.")
    return read_nifti(header, time_axis=time_axis, prefer=prefer)
