"""Recognise an image again: its files by path, size and time, its decoded voxels by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from isal import isal_zlib

from voxlift.data_pipelines.files import is_file, is_folder
from voxlift.data_pipelines.geometry import reorient_grid, stored_grid
from voxlift.data_pipelines.readers.dicom_frames import find_missed_scaling
from voxlift.data_pipelines.readers.metaimage import changes_itk_values, find_metaimage_files
from voxlift.data_pipelines.readers.nrrd import changes_itk_geometry, find_nrrd_files
from voxlift.data_pipelines.readers.recognise import HEAD_BYTES, find_format
from voxlift.data_pipelines.volume import Array, Stored, VolumeError, real_values

HASH_KIND = "2:"  # before each hash; those of earlier versions had nothing
WHOLE_BYTES = 1_000_000  # of float32 voxels: up to here every voxel is hashed, above it checksums of blocks
BLOCK_BYTES = 65_536
_HEADERS = (".hdr", ".hdr.gz", ".img", ".img.gz", ".mhd", ".nhdr")
_HALVES = (".hdr", ".hdr.gz", ".img", ".img.gz", ".raw", ".raw.gz", ".zraw")


def identify_image(image: Path) -> tuple[tuple[str, int, int], ...]:
    """Return (absolute path, bytes, modification time in ns) of each file that holds a part of an image.

    Nothing is decoded. A folder (a DICOM series) counts with all files below it. A header beside its voxels,
    or the other way round, counts with the files of the same name that may be the other half, and with every
    file that it refers to: each can change without it.

    Args:
        image: A file or folder; an absent one has -1 for bytes and time.
    """
    return tuple((str(file.absolute()), *_size_and_time(file)) for file in _files_of(image))


def hash_image(stored: Stored) -> str:
    """Return a hash of an image's real voxels in RAS, whatever format, type and axes it is stored in.

    Two files with the same hash show the same image. Spacing and position do not enter: a copy with an edited
    header is a copy.
    """
    voxels = _in_ras(stored)
    digest = hashlib.blake2b(str(voxels.shape).encode(), digest_size=16)
    plane_bytes = 4 * voxels[:, :, :1].size
    is_large = plane_bytes * voxels.shape[2] > WHOLE_BYTES
    step = max(1, WHOLE_BYTES // max(1, plane_bytes))
    for start in range(0, voxels.shape[2], step):
        planes = _real_planes(voxels[:, :, start : start + step], stored)
        digest.update(_checksums(planes) if is_large else planes.tobytes())
    return HASH_KIND + digest.hexdigest()


def is_comparable(hashes: Iterable[str | None]) -> bool:
    """Return whether hashes are of the kind that `hash_image` gives now; earlier versions gave others."""
    return all(one is None or one.startswith(HASH_KIND) for one in hashes)


def _real_planes(voxels: Array, stored: Stored) -> Array:
    """Return the real values of planes [W, H, D, ...] as bytes [D, plane]: 7 as uint8 is the voxel 7.0."""
    with np.errstate(over="ignore", invalid="ignore"):
        real = voxels.astype(np.float64) * stored.slope + stored.inter if stored.is_scaled else voxels
        values = np.ascontiguousarray(np.moveaxis(real.T, -3, 0), np.float32)  # the first axis is the fastest
    if real.dtype.kind == "f":
        values = values + np.float32(0)  # -0.0 becomes 0.0
        values[np.isnan(values)] = np.nan  # one bit pattern for all
    return values.reshape(len(values), -1).view(np.uint8)


def _checksums(planes: Array) -> bytes:
    """Return checksums of the blocks of each plane, twenty times faster than a hash of all.

    Different images have many blocks that differ; of one block alone, one change in 2^32 is missed.
    """
    starts = range(0, planes.shape[1], BLOCK_BYTES)
    sums = [isal_zlib.crc32(plane[start : start + BLOCK_BYTES]) for plane in planes for start in starts]
    return np.array(sums, "<u4").tobytes()


def is_blank(stored: Stored) -> bool:
    """Return whether all finite real values of an image are equal, or none is finite."""
    values = real_values(stored)
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return finite.size == 0 or float(finite.min()) == float(finite.max())


def _in_ras(stored: Stored) -> Array:
    """Return the stored voxels with their axes permuted and flipped to RAS, a view."""
    voxels = stored.voxels
    grid = reorient_grid(stored_grid(voxels.shape), stored.affine)
    order = [int(np.argmax(np.abs(grid.to_source[:3, axis]))) for axis in range(3)]
    flips = tuple(
        slice(None, None, int(np.sign(grid.to_source[source, axis]))) for axis, source in enumerate(order)
    )
    view: Array = voxels.transpose([*order, *range(3, voxels.ndim)])[flips]
    return view


def find_reading(image: Path) -> str:
    """Return how an image is read where earlier versions read it in another way, otherwise empty.

    Voxels that these prepared from the same file are wrong, and must not be served.
    """
    try:
        return _find_reading(image)
    except VolumeError:
        return ""


def _find_reading(image: Path) -> str:
    kind = _find_text_format(image)
    if kind == "nrrd":
        return "header units" if changes_itk_geometry(image) else ""
    if kind == "metaimage":
        return "header units and scaling" if changes_itk_values(image) else ""
    if kind == "dicom":
        return find_missed_scaling(image)
    return ""


def _find_text_format(image: Path) -> str | None:
    """Return the format of a file that may refer to others or be read anew; None for all others.

    NIfTI and MGH are recognised by their names, so that large data sets need not be opened.
    """
    if image.name.lower().endswith((".nii", ".nii.gz", ".mgh", ".mgz")) or not is_file(image):
        return None
    try:
        with image.open("rb") as file:
            return find_format(file.read(HEAD_BYTES))
    except OSError:
        return None


def _files_of(image: Path) -> list[Path]:
    if is_folder(image):
        return sorted(path for path in image.rglob("*") if is_file(path))
    files = [image, *_halves_of(image), *_referred_files(image)]
    return list(dict.fromkeys(files))


def _halves_of(image: Path) -> list[Path]:
    endings = [ending for ending in _HEADERS if image.name.lower().endswith(ending)]
    if not endings:
        return []
    stem = image.name[: -len(max(endings, key=len))]
    names = [stem + ending for ending in (*_HALVES, *map(str.upper, _HALVES))]
    return [half for half in map(image.with_name, names) if is_file(half)]


def _referred_files(image: Path) -> list[Path]:
    """Return the data files that a header names, also those that are absent now."""
    find = {"nrrd": find_nrrd_files, "metaimage": find_metaimage_files}.get(str(_find_text_format(image)))
    try:
        return list(find(image)) if find else []
    except VolumeError:
        return []


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except (OSError, ValueError):  # a name with NUL is none
        return (-1, -1)
    return (stat.st_size, stat.st_mtime_ns)
