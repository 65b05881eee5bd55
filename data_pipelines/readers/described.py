"""Read the voxels that a text header (NRRD, MetaImage) describes: in one file or several, in any encoding."""

import bz2
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxlift.data_pipelines.files import find_kind
from voxlift.data_pipelines.readers.decompress import (
    MAX_BYTES,
    MAX_DEFLATE_RATIO,
    MAX_TRAILING_BYTES,
    GzipError,
    decompress_gzip,
    is_gzip,
)
from voxlift.data_pipelines.volume import Array, VolumeError

MAX_HEADER_BYTES = 2**22
"""Longest text header that is read (4 MB); segmentations keep a few kilobytes of names there."""

_LONGEST_NUMBER = 64  # characters
_MOST_PER_BYTE = {"gzip": MAX_DEFLATE_RATIO, "zlib": MAX_DEFLATE_RATIO, "bzip2": MAX_BYTES}


@dataclass(frozen=True)
class VoxelData:
    """Where the voxels of a header are, and how they are stored.

    Attributes:
        files: One file, or several that each hold an equal part, in order.
        shape: As stored, first axis fastest.
        dtype: Of one number, with its byte order.
        encoding: `raw`, `gzip`, `zlib` (or gzip), `bzip2`, `text` or `hex`.
        start: Bytes before the (encoded) voxels of each file; -1: they end where the file ends.
        skip_lines: Lines after `start` that are skipped.
        skip_bytes: Bytes after these, in the decoded content; -1: the voxels end where the file ends.
    """

    files: tuple[Path, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    encoding: str = "raw"
    start: int = 0
    skip_lines: int = 0
    skip_bytes: int = 0


def read_header_text(path: Path, *, blank_line: bool) -> tuple[str, int]:
    """Return a text header and its length in bytes.

    Args:
        path: The file that starts with the header.
        blank_line: Whether the header ends with a blank line (NRRD); otherwise with the line that names the
            data (MetaImage). A header without an end is the whole file.

    Raises:
        VolumeError: The file cannot be read.
    """
    raw = read_raw(path, 0, MAX_HEADER_BYTES)
    end = _find_blank_line(raw) if blank_line else _find_data_line(raw)
    return raw[:end].decode("utf-8", "surrogateescape"), end


def _find_blank_line(raw: bytes) -> int:
    ends = [(raw.find(mark), len(mark)) for mark in (b"\n\n", b"\r\n\r\n", b"\n\r\n")]
    return min((at + length for at, length in ends if at >= 0), default=len(raw))


def _find_data_line(raw: bytes) -> int:
    start = max(raw.find(b"ElementDataFile"), 0)
    end = raw.find(b"\n", start)
    return len(raw) if end < 0 else end + 1


def read_raw(path: Path, start: int, size: int = -1) -> bytes:
    """Return bytes of a file as stored.

    Args:
        path: The file.
        start: First byte.
        size: How many at most; -1 for all.

    Raises:
        VolumeError: The file is absent, no regular file, or unreadable.
    """
    problem = find_kind(path).problem
    if problem:
        raise VolumeError(f"{path}: {problem}")
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise VolumeError(f"{path}: cannot be read ({error.strerror or error}).") from error


def resolve_data_file(header: Path, name: str) -> Path:
    """Return the path of a data file that a header names, relative to the header's folder.

    Args:
        header: The header's file.
        name: As the header names it; backslashes are separators where there is no such file otherwise.
    """
    path = header.parent / name
    if "\\" in name and find_kind(path).name != "file":
        return header.parent / name.replace("\\", "/")
    return path


def count_bytes(shape: Sequence[int], dtype: np.dtype[np.generic]) -> int:
    """Return the bytes of decoded voxels, exact also where a damaged header claims more than 64 bits hold."""
    return math.prod(shape) * dtype.itemsize


def read_described(header: Path, data: VoxelData) -> Array:
    """Return the voxels in the shape that the header states, first axis fastest.

    Args:
        header: The header's file, for messages about its claims.
        data: Where they are.

    Raises:
        VolumeError: A file is absent, cut off or damaged, or the header claims more than the files hold.
    """
    wanted = count_bytes(data.shape, data.dtype)
    if wanted > MAX_BYTES:
        raise VolumeError(
            f"{header}: the header claims {wanted:,} bytes of voxels; at most {MAX_BYTES / 1e9:.1f} GB are"
            " read. It is damaged, or the image must be cropped or stored in a smaller type."
        )
    if wanted % len(data.files):
        raise VolumeError(
            f"{header}: the header names {len(data.files)} data files, which do not divide its"
            f" {'x'.join(map(str, data.shape))} voxels into equal parts."
        )
    part = wanted // len(data.files)
    try:
        for file in data.files:
            _check_claim(file, data, part)
        parts = [_read_part(file, data, part) for file in data.files]
    except VolumeError as error:
        if header in data.files:
            raise
        raise VolumeError(f"{header}: its data cannot be read: {error}") from error
    content = parts[0] if len(parts) == 1 else b"".join(parts)
    return np.frombuffer(content, data.dtype).reshape(data.shape, order="F")


def _check_claim(file: Path, data: VoxelData, wanted: int) -> None:
    """Raise if a file cannot hold its part, before anything is decoded."""
    kind = find_kind(file)
    if kind.name != "file":
        raise VolumeError(f"{file}: {kind.problem or 'expected a data file, found a folder.'}")
    held = max(file.stat().st_size - max(data.start, 0), 0)
    least = {"text": 2 * (wanted // data.dtype.itemsize) - 1, "hex": 2 * wanted}.get(data.encoding, wanted)
    if least > held * _MOST_PER_BYTE.get(data.encoding, 1):
        raise VolumeError(_cut_off_message(file, held, wanted, data.encoding))


def _cut_off_message(file: Path, held: int, wanted: int, encoding: str) -> str:
    packed = "" if encoding == "raw" else f" in {encoding} encoding"
    return (
        f"{file}: cut off or damaged: the header claims {wanted:,} bytes of voxels, the file holds"
        f" {held:,} bytes{packed}. Copy it again from its source."
    )


def _read_part(file: Path, data: VoxelData, wanted: int) -> bytes:
    start = data.start
    if start < 0 or (data.encoding == "raw" and data.skip_bytes < 0):
        start = file.stat().st_size - wanted
        return _exactly(read_raw(file, max(start, 0)), wanted, file, data.encoding)
    raw = read_raw(file, start, -1 if data.skip_lines or data.encoding != "raw" else data.skip_bytes + wanted)
    for _ in range(min(data.skip_lines, len(raw))):
        raw = raw[raw.find(b"\n") + 1 :] if b"\n" in raw else b""
    skip = max(data.skip_bytes, 0)
    if data.encoding in ("text", "hex"):
        return _exactly(_decode_text(raw[skip:], data, wanted, file), wanted, file, data.encoding)
    content = raw if data.encoding == "raw" else _decompress(raw, data.encoding, skip + wanted, file)
    return _exactly(content[skip : skip + wanted], wanted, file, data.encoding)


def _exactly(content: bytes, wanted: int, file: Path, encoding: str) -> bytes:
    if len(content) < wanted:
        raise VolumeError(_cut_off_message(file, len(content), wanted, encoding))
    return content[:wanted]


def _decompress(raw: bytes, encoding: str, wanted: int, file: Path) -> bytes:
    """Return the first `wanted` bytes of a stream, its checksum verified where the stream ends there."""
    try:
        if encoding == "bzip2":
            return bz2.BZ2Decompressor().decompress(raw, wanted)
        if is_gzip(raw) or encoding == "gzip":
            return decompress_gzip(raw, wanted)[0]
        stream = zlib.decompressobj()
        content = stream.decompress(raw, wanted)
        stream.decompress(stream.unconsumed_tail, MAX_TRAILING_BYTES)  # a short rest leads to the checksum
    except (OSError, EOFError, zlib.error, GzipError) as error:
        raise VolumeError(
            f"{file}: the {encoding} stream is damaged or cut off ({error}). Copy the file again."
        ) from error
    return content


def _decode_text(raw: bytes, data: VoxelData, wanted: int, file: Path) -> bytes:
    """Return the bytes of numbers that are written as text or as hexadecimal digits."""
    count = wanted // data.dtype.itemsize
    words = raw.replace(b",", b" ").split(maxsplit=count)[:count] if data.encoding == "text" else []
    if max(map(len, words), default=0) > _LONGEST_NUMBER:
        raise VolumeError(
            f"{file}: expected numbers as text, found a word of more than {_LONGEST_NUMBER} letters."
        )
    try:
        if data.encoding == "hex":
            return bytes.fromhex(raw.decode("ascii"))
        kind = np.float64 if data.dtype.kind == "f" else np.dtype(f"{data.dtype.kind}8")
        return np.array(words, dtype="S").astype(kind).astype(data.dtype).tobytes()
    except (ValueError, OverflowError) as error:
        raise VolumeError(f"{file}: expected numbers as text, found others ({error}).") from error
