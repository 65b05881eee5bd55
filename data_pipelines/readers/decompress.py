"""Read the bytes of a file, decompressed, within the memory that its size justifies."""

import math
from pathlib import Path

import numpy as np
from isal import igzip_lib

from voxlift.data_pipelines.files import find_kind
from voxlift.data_pipelines.volume import Array, VolumeError

GZIP_MAGIC = b"\x1f\x8b"
MAX_BYTES = 8 * 2**30
"""Largest decoded image that is read (8.6 GB): a larger claim is refused before memory is allocated."""

MAX_DEFLATE_RATIO = 1032
"""Deflate cannot compress further (zlib's technical notes), so a header that claims more is wrong."""

MAX_TRAILING_BYTES = 2**20
# The stub of isal declares the exception class as an instance.
GzipError: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]


def read_voxels(path: Path, offset: int, *, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """Return the voxels `[i, j, k, ...]` in a file's decompressed content, first axis fastest, as stored.

    Args:
        path: The file, gzip or not.
        offset: Bytes of the content before the voxels.
        shape: Voxels along each axis.
        dtype: Of one voxel, with its byte order.

    Raises:
        VolumeError: The content is cut off, damaged, or holds less.
    """
    count = math.prod(shape)  # Python's numbers: a damaged header may ask for more than 64 bits hold
    raw = _read_content(path, offset + count * dtype.itemsize)
    return np.frombuffer(raw, dtype=dtype, count=count, offset=offset).reshape(shape, order="F")


def read_head(path: Path, size: int) -> bytes:
    """Return the first `size` bytes of the decompressed content; fewer where it is shorter or broken.

    Args:
        path: The file.
        size: How many bytes of the content.

    Raises:
        VolumeError: The file is absent, unreadable or empty.
    """
    # 64 KiB hold far more than any header, compressed or not.
    raw = _read_stored_bytes(path, max(size, 65536))
    if not is_gzip(raw):
        return raw[:size]
    try:
        return decompress_gzip(raw, size, max_trailing=0)[0]
    except (GzipError, EOFError):
        return b""


def is_cut_gzip(path: Path, size: int) -> bool:
    """Return whether a file is a gzip stream that ends, or is damaged, before `size` bytes of content."""
    raw = _read_stored_bytes(path, max(size, 65536))
    if not is_gzip(raw):
        return False
    try:
        content, is_complete = decompress_gzip(raw, size, max_trailing=0)
    except (GzipError, EOFError):
        return True
    return len(content) < size and not is_complete


def _read_content(path: Path, wanted: int) -> bytes:
    """Return the first `wanted` bytes of the content, decompressed and its checksum verified.

    A gzip bomb is not unpacked beyond the bytes that the header justifies.
    """
    _check_claimed_size(wanted, path)
    if not is_gzip(_read_stored_bytes(path, 2)):
        return _read_stored_bytes(path, wanted)
    try:
        data, is_complete = decompress_gzip(_read_stored_bytes(path), wanted)
    except GzipError as error:
        raise VolumeError(
            f"{path}: the gzip stream is damaged ({error}). Copy the file again from its source."
        ) from error
    if len(data) < wanted:
        reason = "holds less than its header claims" if is_complete else "is cut off"
        raise VolumeError(
            f"{path}: the gzip stream {reason} ({len(data):,} of {wanted:,} bytes). Copy the file again."
        )
    return data


def _check_claimed_size(claimed: int, path: Path) -> None:
    """Raise if a header claims more bytes than the file can hold, before any memory is allocated."""
    is_packed = is_gzip(_read_stored_bytes(path, 2))
    size = path.stat().st_size
    if claimed > size * (MAX_DEFLATE_RATIO if is_packed else 1):
        raise VolumeError(
            f"{path}: the header claims {claimed:,} bytes but the file holds {size:,}"
            f"{' compressed' if is_packed else ''}. It is cut off or damaged: copy it again from its source."
        )
    if claimed > MAX_BYTES:
        raise VolumeError(
            f"{path}: the image needs {claimed / 1e9:.1f} GB once decoded; at most"
            f" {MAX_BYTES / 1e9:.1f} GB are read. Crop it or store it in a smaller type."
        )


def _read_stored_bytes(path: Path, size: int = -1) -> bytes:
    """Return the first `size` bytes of a file as stored, or all of them."""
    problem = find_kind(path).problem
    if problem:
        raise VolumeError(f"{path}: {problem}")
    try:
        with path.open("rb") as file:
            raw = file.read(size)
    except OSError as error:
        raise VolumeError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if not raw:
        raise VolumeError(f"{path}: the file is empty (0 bytes). Copy it again from its source.")
    return raw


def is_gzip(raw: bytes) -> bool:
    """Return whether bytes start a gzip stream."""
    return raw[:2] == GZIP_MAGIC


def decompress_gzip(raw: bytes, wanted: int, max_trailing: int = MAX_TRAILING_BYTES) -> tuple[bytes, bool]:
    """Return up to `wanted` bytes of the content (all gzip members in turn) and whether the stream ended.

    Args:
        raw: The stream.
        wanted: Most bytes of content.
        max_trailing: Most bytes of content after these that are decompressed to verify the checksum.

    Raises:
        GzipError: The stream is damaged.
    """
    parts: list[bytes] = []
    left = wanted
    decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    feed = raw
    while True:
        part = decompressor.decompress(feed, left)
        parts.append(part)
        left -= len(part)
        if left <= 0 or not (part or decompressor.eof):
            break
        if decompressor.eof:
            feed = decompressor.unused_data.lstrip(b"\0")
            if not is_gzip(feed):
                break
            decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        else:
            feed = b""
    if left <= 0 and max_trailing and not decompressor.eof:
        # The checksum is at the end: decompress a short rest to reach it; a longer rest is not our data.
        decompressor.decompress(b"", max_trailing)
    return (parts[0] if len(parts) == 1 else b"".join(parts)), bool(decompressor.eof)
