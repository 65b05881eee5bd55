"""Bytes of a file, gzip undone, and never more memory than the header can justify."""

import math
from pathlib import Path

import numpy as np
from isal import igzip_lib

from voxlift.data_pipelines.volume import Array, VolumeError

GZIP_MAGIC = b"\x1f\x8b"
MAX_BYTES = 8 * 2**30
"""Largest decoded image that is read (8 GiB): a larger claim is refused before memory is asked for."""

DEFLATE_LIMIT = 1032
"""Deflate cannot shrink data further than this (zlib's technical notes), so a claim beyond it is a lie."""

TAIL_BYTES = 2**20
# The stub of isal declares the exception class as an instance.
_GzipError: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]


def is_gzip(raw: bytes) -> bool:
    """Return whether the bytes start a gzip stream."""
    return raw[:2] == GZIP_MAGIC


def read_raw(path: Path, size: int = -1) -> bytes:
    """Return the first `size` bytes of a file as stored, or all of them.

    Args:
        path: The file.
        size: How many bytes; -1 for all.

    Raises:
        VolumeError: The file is absent, unreadable or empty.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(size)
    except FileNotFoundError:
        raise VolumeError(_absent(path)) from None
    except OSError as error:
        raise VolumeError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if not raw:
        raise VolumeError(f"{path}: the file is empty (0 bytes). Copy it again from its source.")
    return raw


def _absent(path: Path) -> str:
    if path.is_symlink():
        return f"{path}: a link to {path.readlink()}, which is not there. Fetch the file that it stands for."
    return f"{path}: no such file. Check the path in the table, or its root folder."


def peek(path: Path, size: int) -> bytes:
    """Return the first `size` bytes of the content, gzip undone; fewer where it is shorter or broken.

    Args:
        path: The file.
        size: How many bytes of the content.

    Raises:
        VolumeError: The file is absent, unreadable or empty.
    """
    # 64 KiB hold far more than any header, compressed or not.
    raw = read_raw(path, max(size, 65536))
    if not is_gzip(raw):
        return raw[:size]
    try:
        return _inflate(raw, size, tail=0)[0]
    except (_GzipError, EOFError):
        return b""


def check_claim(claimed: int, path: Path) -> None:
    """Refuse a header that claims more bytes than the file can hold, before any memory is asked for.

    Args:
        claimed: Bytes that the header needs, voxels and all that lies before them.
        path: The file.

    Raises:
        VolumeError: The claim is beyond the file, or beyond `MAX_BYTES`.
    """
    packed = is_gzip(read_raw(path, 2))
    size = path.stat().st_size
    if claimed > size * (DEFLATE_LIMIT if packed else 1):
        raise VolumeError(
            f"{path}: the header claims {claimed:,} bytes but the file holds {size:,}"
            f"{' compressed' if packed else ''}. It is cut off or damaged: copy it again from its source."
        )
    if claimed > MAX_BYTES:
        raise VolumeError(
            f"{path}: the image needs {claimed / 2**30:.1f} GiB once decoded; at most"
            f" {MAX_BYTES / 2**30:.0f} GiB are read. Crop it or store it in a smaller type."
        )


def content(path: Path, wanted: int) -> bytes:
    """Return the first `wanted` bytes of the content, gzip undone and its checksum verified.

    Args:
        path: The file.
        wanted: How many bytes the header justifies; a gzip bomb is not unpacked beyond them.

    Raises:
        VolumeError: The stream is cut off, damaged, or holds less than `wanted`.
    """
    check_claim(wanted, path)
    if not is_gzip(read_raw(path, 2)):
        return read_raw(path, wanted)
    try:
        data, complete = _inflate(read_raw(path), wanted)
    except _GzipError as error:
        raise VolumeError(
            f"{path}: the gzip stream is damaged ({error}). Copy the file again from its source."
        ) from error
    if len(data) < wanted:
        reason = "holds less than its header claims" if complete else "is cut off"
        raise VolumeError(
            f"{path}: the gzip stream {reason} ({len(data):,} of {wanted:,} bytes). Copy the file again."
        )
    return data


def read_voxels(path: Path, offset: int, *, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """Return the voxels `[i, j, k, ...]` that lie in a file's content, first axis fastest, as stored.

    Args:
        path: The file, gzip or not.
        offset: Bytes of the content before them.
        shape: Voxels along each axis.
        dtype: Of one voxel, with its byte order.

    Raises:
        VolumeError: The content is cut off, damaged, or holds less.
    """
    count = math.prod(shape)  # Python's numbers: a damaged header may ask for more than 64 bits hold
    raw = content(path, offset + count * dtype.itemsize)
    return np.frombuffer(raw, dtype=dtype, count=count, offset=offset).reshape(shape, order="F")


def _inflate(raw: bytes, wanted: int, tail: int = TAIL_BYTES) -> tuple[bytes, bool]:
    """Return the content up to `wanted` bytes (several gzip members are one content) and whether it ended."""
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
    if left <= 0 and tail and not decompressor.eof:
        # The checksum stands at the end: reach it where little follows, an extra tail is not our data.
        decompressor.decompress(b"", tail)
    return (parts[0] if len(parts) == 1 else b"".join(parts)), bool(decompressor.eof)
