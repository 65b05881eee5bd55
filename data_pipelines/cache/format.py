"""The cache format: one raw file per volume, all of one shape and type."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.volume import VolumeError

Shape = tuple[int, int, int, int]  # depth, height, width, channels


@dataclass(frozen=True)
class PreparedVolumes:
    """Volumes that all have one shape and type, a file each: the raw voxels in C order, nothing else.

    Attributes:
        files: one per volume.
        shape: of each, [D, H, W, C].
        dtype: of the stored voxels: `float16`, `float32`, `uint8` or `int16`.
    """

    files: tuple[Path, ...]
    shape: Shape
    dtype: str

    def __len__(self) -> int:
        """How many volumes there are."""
        return len(self.files)

    def arrays(self) -> Iterator[NDArray[Any]]:
        """The voxels [D, H, W, C] of each volume in turn, as stored."""
        for file in self.files:
            yield np.fromfile(file, self.dtype).reshape(self.shape)


NORMALISED = "float16"
WHOLE = ("uint8", "int16")
# Each holds whatever the ones before it hold that stand beside it: no data set is normalised in part.
LADDER = (*WHOLE, NORMALISED, "float32")
HALF_MAX = float(np.finfo(NORMALISED).max)


@dataclass(frozen=True)
class CacheFormat:
    """The shape [D, H, W, C] and the type in which every volume of a data set is stored."""

    shape: Shape
    dtype: str

    @property
    def bytes(self) -> int:
        """Of one volume."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def spoken(self) -> str:
        """For messages."""
        return f"{spoken_shape(self.shape)} {self.dtype}"


def spoken_shape(shape: Sequence[int]) -> str:
    """The shape for messages.

    >>> spoken_shape((5, 7, 11, 1))
    '5x7x11x1'
    """
    return "x".join(map(str, shape))


def choose_dtype(voxels: NDArray[np.float32], settings: Preprocess) -> str:
    """The smallest type that loses nothing of these voxels that training needs.

    Intensities that a window or a standard score brought to the order of one are kept in float16: 11
    significant bits remain. Others are in the image's own units, which need more bits or exceed float16's
    65504 (as a standard score of what lies far outside the foreground can); they are kept as integers where
    all are whole numbers (masks, 8-bit images, unscaled scans on their own grid), else in float32.

    Args:
        voxels: [D, H, W, C] of one prepared volume.
        settings: By which it was prepared.
    """
    low, high = float(voxels.min()), float(voxels.max())
    if settings.window_hu or settings.zscore != "none":
        return NORMALISED if max(-low, high) <= HALF_MAX else "float32"
    fitting = [name for name in WHOLE if np.iinfo(name).min <= low and high <= np.iinfo(name).max]
    return fitting[0] if fitting and bool((voxels == np.rint(voxels)).all()) else "float32"


def wider(one: str, other: str) -> str:
    """The type that holds what both hold.

    >>> wider("int16", "uint8")
    'int16'

    Args:
        one: A type of `LADDER`.
        other: Another, of a volume of the same data set.
    """
    return one if one == other else max(one, other, key=LADDER.index)


def say_room(files: Sequence[Path], form: CacheFormat, *, folder: Path) -> str:
    """How large the data set is in the cache, and how much of it is still to be written.

    Args:
        files: Where each volume lies or will lie.
        form: Shape and type of each.
        folder: The cache.
    """
    missing = sum(not file.exists() for file in files)
    whole = f"Cache: {len(files)} volumes of {form.spoken} take {_spoken_bytes(form.bytes * len(files))}"
    if not missing:
        return f"{whole} in {folder}, all there"
    free = shutil.disk_usage(_existing(folder)).free
    return (
        f"{whole} in {folder}; {missing} are to be prepared ({_spoken_bytes(form.bytes * missing)} of "
        f"{_spoken_bytes(free)} free)"
    )


def check_room(files: Sequence[Path], form: CacheFormat, *, folder: Path, max_gb: float) -> None:
    """Pass when the data set may be written.

    Args:
        files: Where each volume lies or will lie.
        form: Shape and type of each.
        folder: The cache.
        max_gb: Most that this data set may take there, in 10^9 bytes.

    Raises:
        VolumeError: it is larger than allowed, or than what is free on the disk.
    """
    whole, missing = form.bytes * len(files), form.bytes * sum(not file.exists() for file in files)
    if whole > max_gb * 1e9:
        raise VolumeError(
            f"The cache of {len(files)} volumes of {form.spoken} would take "
            f"{_spoken_bytes(whole)}; cache.max_gb is {max_gb:g}. "
            "Raise it, or choose a coarser preprocess.spacing or a smaller preprocess.shape."
        )
    free = shutil.disk_usage(_existing(folder)).free
    if missing > 0.95 * free:
        raise VolumeError(
            f"The cache needs {_spoken_bytes(missing)} more in {folder}, where {_spoken_bytes(free)} are "
            "free; choose another cache.folder or a smaller preprocess.shape."
        )


def recall_form(path: Path) -> CacheFormat | None:
    """The form that an earlier run wrote; None where there is none, or none that can be read."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        depth, height, width, channels = map(int, kept["shape"])
        dtype = str(kept["dtype"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return CacheFormat((depth, height, width, channels), dtype) if dtype in LADDER else None


def form_text(form: CacheFormat) -> str:
    """What `recall_form` reads."""
    return json.dumps(asdict(form))


def _spoken_bytes(count: float) -> str:
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _existing(folder: Path) -> Path:
    """The nearest folder above that exists: disk space can be asked only of one."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())
