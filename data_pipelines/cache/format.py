"""The cache on disk: one raw file per volume, all of one shape and type, and its metadata beside it.

The metadata are voxel hashes for the leak check and a summary for the input ranges. Both are computed from
the decoded image while the cache prepares it, so that no image is decoded twice. For entries without metadata
(of an earlier version) the images are decoded once more, and the metadata is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.files import atomic_write
from voxlift.data_pipelines.geometry import axcodes_of, ras_geometry
from voxlift.data_pipelines.preprocess.prepare import read_record
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.readers.identity import hash_image, is_blank, is_comparable
from voxlift.data_pipelines.volume import Affine, Array, Stored, VolumeError

Shape = tuple[int, int, int, int]  # depth, height, width, channels

NORMALISED = "float16"
INTEGERS = ("uint8", "int16")
# From narrow to wide. A data set is either normalised (float16, float32) or not (integers, float32): within
# it, a wider type holds the values of the narrower ones.
DTYPES = (*INTEGERS, NORMALISED, "float32")
FLOAT16_MAX = float(np.finfo(NORMALISED).max)
MAX_SAMPLES = 100_000
"""So many voxels, evenly spread, are enough for percentiles."""
STATISTICS = {"p01": "1st percentile", "p50": "median", "p99": "99th percentile", "mean": "mean", "sd": "sd"}


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


@dataclass(frozen=True)
class VolumeMetadata:
    """What was learned of one record while it was prepared.

    Attributes:
        voxel_hashes: Per image the hash of its decoded voxels, see `hash_image`; None for a blank image,
            which equals other blank images without being a copy of them.
        summary: Geometry of the first image and statistics of the prepared voxels.
        affine: 4x4 of the prepared grid, (width, height, depth) index to world mm, RAS+; None in entries of
            an earlier version.
    """

    voxel_hashes: tuple[str | None, ...]
    summary: VolumeSummary
    affine: tuple[tuple[float, ...], ...] | None = field(default=None, compare=False)

    def combine_hashes(self, images: Sequence[Path]) -> str:
        """Return one hash of the record: equal for two records whose images show the same voxels.

        Args:
            images: The record's images; the path of a blank one stands for its hash.
        """
        pairs = zip(self.voxel_hashes, images, strict=True)
        return "+".join(f"blank {image}" if digest is None else digest for digest, image in pairs)


def extract_metadata(
    stored: Sequence[Stored], prepared: Array, affine: Affine | None = None
) -> VolumeMetadata:
    """Return the metadata of a record.

    Args:
        stored: Its images as `read_record` returns them.
        prepared: Its prepared voxels `[D, H, W, C]`, in the type of the cache.
        affine: 4x4 of the prepared grid, index to world mm; None: not known.
    """
    hashes = tuple(None if is_blank(one) else hash_image(one) for one in stored)
    rows = None if affine is None else tuple(tuple(map(float, row)) for row in affine)
    return VolumeMetadata(hashes, summarise_volume(stored, prepared), rows)


def write_metadata(file: Path, metadata: VolumeMetadata) -> None:
    """Write the metadata beside a prepared file, atomically.

    Raises:
        OSError: The folder cannot be written.
    """
    with atomic_write(_metadata_path(file)) as path:
        path.write_text(json.dumps(asdict(metadata)), encoding="utf-8")


def load_metadata(
    images: Sequence[tuple[Path, ...]],
    volumes: PreparedVolumes,
    settings: Preprocess,
    *,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[VolumeMetadata]:
    """Return the metadata of prepared volumes; the images of those without are decoded once.

    Args:
        images: Per record its files, one per channel.
        volumes: Their prepared volumes.
        settings: The preprocessing that made them.
        workers: Threads that decode; 0 means one per CPU.
        progress: Called with (decoded, to decode) after each decoded record.

    Raises:
        VolumeError: An image can no longer be read.
    """
    known = [_read_metadata(file) for file in volumes.files]
    missing = [index for index, metadata in enumerate(known) if metadata is None]
    compute = partial(_compute_metadata, images, volumes, settings)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for done, (index, metadata) in enumerate(
            zip(missing, pool.map(compute, missing), strict=True), start=1
        ):
            known[index] = metadata
            if progress is not None:
                progress(done, len(missing))
    return [metadata for metadata in known if metadata is not None]


def _compute_metadata(
    images: Sequence[tuple[Path, ...]], volumes: PreparedVolumes, settings: Preprocess, index: int
) -> VolumeMetadata:
    file = volumes.files[index]
    prepared = np.fromfile(file, volumes.dtype).reshape(volumes.shape)
    metadata = extract_metadata(read_record(images[index], settings), prepared)
    with contextlib.suppress(OSError):  # a complete cache may be read-only: the next run decodes again
        write_metadata(file, metadata)
    return metadata


def _read_metadata(file: Path) -> VolumeMetadata | None:
    """Return the metadata of a prepared file; None where there is none that can be read and compared."""
    try:
        saved = json.loads(_metadata_path(file).read_text(encoding="utf-8"))
        summary, affine = saved["summary"], saved.get("affine")
        if not is_comparable(saved["voxel_hashes"]):
            return None
        return VolumeMetadata(
            tuple(saved["voxel_hashes"]),
            VolumeSummary(
                spacing=tuple(summary["spacing"]),
                shape=tuple(summary["shape"]),
                axcodes=summary["axcodes"],
                channels=tuple(summary["channels"]),
            ),
            None if affine is None else tuple(map(tuple, affine)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _metadata_path(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


@dataclass(frozen=True)
class VolumeSummary:
    """Geometry and intensity statistics of one record.

    Attributes:
        spacing: mm of the first image in RAS, ordered (depth, height, width).
        shape: Its voxels in RAS, ordered (depth, height, width).
        axcodes: World directions of its stored axes.
        channels: Per channel the statistics (`STATISTICS`) of the prepared voxels, which the network sees.
    """

    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    axcodes: str
    channels: tuple[Mapping[str, float], ...]


def summarise_volume(stored: Sequence[Stored], prepared: Array) -> VolumeSummary:
    """Return a record's summary.

    Args:
        stored: Its images, see `read_record`.
        prepared: Its prepared voxels `[D, H, W, C]`.
    """
    first = stored[0]
    shape, spacing = ras_geometry(first.voxels.shape, first.affine)
    return VolumeSummary(
        spacing=spacing,
        shape=shape,
        axcodes=axcodes_of(first.affine),
        channels=tuple(_statistics(prepared[..., channel]) for channel in range(prepared.shape[-1])),
    )


def _statistics(channel: Array) -> dict[str, float]:
    flat = channel.reshape(-1)
    sample = flat[:: max(1, flat.size // MAX_SAMPLES)].astype(np.float64)
    p01, p50, p99 = np.percentile(sample, [1, 50, 99])
    return {
        "p01": float(p01),
        "p50": float(p50),
        "p99": float(p99),
        "mean": float(sample.mean()),
        "sd": float(sample.std()),
    }
