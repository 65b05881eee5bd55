"""What changes when an image does, told without reading it: path, size and time of all its files."""

from __future__ import annotations

from pathlib import Path

_HEADERS = (".hdr", ".hdr.gz", ".img", ".img.gz", ".mhd", ".nhdr")
_HALVES = (".hdr", ".hdr.gz", ".img", ".img.gz", ".raw", ".raw.gz", ".zraw")


def identify_image(image: Path) -> tuple[tuple[str, int, int], ...]:
    """Return (absolute path, bytes, time of change in ns) of each file that holds a part of an image.

    A folder (a DICOM series) counts with all files below it. A header beside its voxels, or the other way
    round, counts with the files of the same name that may be the other half: each can change without it.

    Args:
        image: A file or folder; one that is not there has -1 for bytes and time.
    """
    return tuple((str(file.absolute()), *_size_and_time(file)) for file in _files_of(image))


def _files_of(image: Path) -> list[Path]:
    if image.is_dir():
        return sorted(path for path in image.rglob("*") if path.is_file())
    endings = [ending for ending in _HEADERS if image.name.lower().endswith(ending)]
    if not endings:
        return [image]
    stem = image.name[: -len(max(endings, key=len))]
    halves = [image.with_name(stem + ending) for ending in _HALVES]
    return [image, *(half for half in halves if half != image and half.is_file())]


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:
        return (-1, -1)
    return (stat.st_size, stat.st_mtime_ns)
