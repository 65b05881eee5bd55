"""The cache format: one raw file per volume, all of one shape and type, and the disk space that takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.volume import VolumeError

Shape = tuple[int, int, int, int]  # depth, height, width, channels

NORMALISED = "float16"
INTEGERS = ("uint8", "int16")
# From narrow to wide. A data set is either normalised (float16, float32) or not (integers, float32): within
# it, a wider type holds the values of the narrower ones.
DTYPES = (*INTEGERS, NORMALISED, "float32")
FLOAT16_MAX = float(np.finfo(NORMALISED).max)


@dataclass(frozen=True)
class PreparedVolumes:
    """Prepared volumes on disk, all of one shape and type: a file each, the raw voxels in C order.

    Attributes:
        files: One per volume.
        shape: Of each, [D, H, W, C].
        dtype: Of the stored voxels: `float16`, `float32`, `uint8` or `int16`.
        columns: float32 [N, F] of each volume, such as age and sex, a second input; None: images alone.
    """

    files: tuple[Path, ...]
    shape: Shape
    dtype: str
    columns: NDArray[np.float32] | None = field(default=None, compare=False)

    def take(self, part: slice) -> PreparedVolumes:
        """Return some of the volumes."""
        columns = None if self.columns is None else self.columns[part]
        return replace(self, files=self.files[part], columns=columns)

    def __len__(self) -> int:
        """Return the number of volumes."""
        return len(self.files)

    def arrays(self) -> Iterator[NDArray[Any]]:
        """Yield the voxels [D, H, W, C] of each volume, as stored."""
        for file in self.files:
            yield np.fromfile(file, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class CacheFormat:
    """The shape [D, H, W, C] and the type in which every volume of a data set is stored."""

    shape: Shape
    dtype: str

    @property
    def bytes(self) -> int:
        """Return the size of one volume in bytes."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{format_shape(self.shape)} {self.dtype}"


def format_shape(shape: Sequence[int]) -> str:
    """Return a shape as text.

    >>> format_shape((5, 7, 11, 1))
    '5x7x11x1'
    """
    return "x".join(map(str, shape))


def choose_dtype(voxels: NDArray[np.float32], settings: Preprocess) -> str:
    """Return the smallest type that keeps what training needs of these voxels.

    Intensities that a window or a standard score brought to the order of one are stored as float16, with 11
    significant bits. Others are in the image's own units, which need more bits or exceed float16's 65504 (as
    a standard score far outside the foreground can); they are stored as integers where all are integers
    (masks, 8-bit images, unscaled scans on their own grid), else as float32.

    Args:
        voxels: [D, H, W, C] of one prepared volume.
        settings: The preprocessing of the volume.
    """
    low, high = float(voxels.min()), float(voxels.max())
    if settings.window_hu or settings.zscore != "none":
        return NORMALISED if max(-low, high) <= FLOAT16_MAX else "float32"
    fitting = [name for name in INTEGERS if np.iinfo(name).min <= low and high <= np.iinfo(name).max]
    return fitting[0] if fitting and bool((voxels == np.rint(voxels)).all()) else "float32"


def wider_dtype(one: str, other: str) -> str:
    """Return the type that holds what both hold.

    >>> wider_dtype("int16", "uint8")
    'int16'

    Args:
        one: A type of `DTYPES`.
        other: Another, of a volume of the same data set.
    """
    return max(one, other, key=DTYPES.index)


def read_format(path: Path) -> CacheFormat | None:
    """Return the format that an earlier run wrote; None where there is none, or none that can be read."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        depth, height, width, channels = map(int, saved["shape"])
        dtype = str(saved["dtype"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return CacheFormat((depth, height, width, channels), dtype) if dtype in DTYPES else None


def encode_format(cache_format: CacheFormat) -> bytes:
    """Return what `read_format` reads."""
    return json.dumps(asdict(cache_format)).encode()


def describe_size(files: Sequence[Path], cache_format: CacheFormat, *, folder: Path) -> str:
    """Return how large the data set is in the cache, and how much of it is still to be written.

    Args:
        files: One per volume, written or not.
        cache_format: Shape and type of each.
        folder: The cache.
    """
    missing = sum(not file.exists() for file in files)
    total = _format_bytes(cache_format.bytes * len(files))
    text = f"Cache: {len(files)} volumes of {cache_format} take {total} in {folder}"
    if not missing:
        return f"{text}; all are prepared"
    needed, free = _format_bytes(cache_format.bytes * missing), _format_bytes(_free_bytes(folder))
    return f"{text}; {missing} are to be prepared ({needed} of {free} free)"


def check_size(files: Sequence[Path], cache_format: CacheFormat, *, folder: Path, max_gb: float) -> None:
    """Raise if the data set is larger than allowed, or than the free disk space.

    Args:
        files: One per volume, written or not.
        cache_format: Shape and type of each.
        folder: The cache.
        max_gb: The most that this data set may take there, in 10^9 bytes.

    Raises:
        VolumeError: It is.
    """
    total = cache_format.bytes * len(files)
    missing = cache_format.bytes * sum(not file.exists() for file in files)
    if total > max_gb * 1e9:
        raise VolumeError(
            f"The cache of {len(files)} volumes of {cache_format} would take {_format_bytes(total)};"
            f" cache.max_gb is {max_gb:g}. Raise it, or choose a coarser preprocess.spacing or a smaller"
            " preprocess.shape."
        )
    free = _free_bytes(folder)
    if missing > 0.95 * free:
        raise VolumeError(
            f"The cache needs {_format_bytes(missing)} more in {folder}, where {_format_bytes(free)} are"
            " free; choose another cache.folder or a smaller preprocess.shape."
        )


def _format_bytes(count: float) -> str:
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _free_bytes(folder: Path) -> int:
    # Disk space can be asked only of a folder that exists: the nearest one above.
    folder = folder.absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
