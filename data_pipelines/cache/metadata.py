"""Metadata beside each prepared volume: voxel hashes for the leak check, a summary for the input ranges.

Both are computed from the decoded image while the cache prepares it, so that no image is decoded twice. For
entries without metadata (of an earlier version) the images are decoded once more, and the metadata is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from voxlift.data_pipelines.cache.format import PreparedVolumes
from voxlift.data_pipelines.files import atomic_write
from voxlift.data_pipelines.geometry import axcodes_of, ras_geometry
from voxlift.data_pipelines.preprocess.prepare import read_record
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.readers.identity import hash_image, is_blank
from voxlift.data_pipelines.volume import Affine, Array, Stored


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
    return VolumeMetadata(hashes, summarize_volume(stored, prepared), rows)


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
    """Return the metadata of a prepared file; None where there is none, or none that can be read."""
    try:
        saved = json.loads(_metadata_path(file).read_text(encoding="utf-8"))
        summary, affine = saved["summary"], saved.get("affine")
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
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _metadata_path(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


MAX_SAMPLES = 100_000
"""So many voxels, evenly spread, are enough for percentiles."""
GEOMETRY_MARGIN = 0.1  # allowed beyond the extremes of spacing and size, as a part of them
INTENSITY_MARGIN = 0.25  # of the training range, and more for few volumes: see `_intensity_margin`
MIN_INTENSITY_MARGIN = 0.05  # of the training contrast, where all volumes gave nearly the same number
AXES = ("depth", "height", "width")
STATISTICS = {"p01": "1st percentile", "p50": "median", "p99": "99th percentile", "mean": "mean", "sd": "sd"}

Range = tuple[float, float]


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


@dataclass(frozen=True)
class TrainingRange:
    """The ranges of a training set.

    Attributes:
        volumes: How many there are.
        spacing: (low, high) in mm for depth, height, width.
        shape: (low, high) in voxels for depth, height, width.
        axcodes: Number of volumes per stored orientation.
        channels: Per channel the (low, high) of each statistic.
    """

    volumes: int
    spacing: tuple[Range, ...]
    shape: tuple[Range, ...]
    axcodes: Mapping[str, int]
    channels: tuple[Mapping[str, Range], ...]


def summarize_volume(stored: Sequence[Stored], prepared: Array) -> VolumeSummary:
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


def find_training_range(summaries: Sequence[VolumeSummary]) -> TrainingRange:
    """Return the ranges of one summary or more, all with the same channels."""
    return TrainingRange(
        volumes=len(summaries),
        spacing=tuple(_extremes([one.spacing[axis] for one in summaries]) for axis in range(3)),
        shape=tuple(_extremes([one.shape[axis] for one in summaries]) for axis in range(3)),
        axcodes=dict(Counter(one.axcodes for one in summaries).most_common()),
        channels=tuple(
            {name: _extremes([one.channels[channel][name] for one in summaries]) for name in STATISTICS}
            for channel in range(len(summaries[0].channels))
        ),
    )


def find_out_of_range(summary: VolumeSummary, training: TrainingRange) -> tuple[str, ...]:
    """Return what lies outside the training ranges, one phrase each; empty where nothing does.

    Args:
        summary: Of one record.
        training: The ranges of the training set, with as many channels.
    """
    found = _unusual_geometry(summary, training)
    if summary.axcodes not in training.axcodes:
        found.append(f"stored as {summary.axcodes} (training {', '.join(training.axcodes)})")
    for index, (values, ranges) in enumerate(zip(summary.channels, training.channels, strict=True)):
        channel = f" of channel {index}" if len(training.channels) > 1 else ""
        found += [phrase + channel for phrase in _unusual_intensities(values, ranges, training.volumes)]
    return tuple(found)


def _unusual_geometry(summary: VolumeSummary, training: TrainingRange) -> list[str]:
    found = []
    for axis, name in enumerate(AXES):
        spacing, side = summary.spacing[axis], summary.shape[axis]
        for phrase, value, (low, high) in (
            (f"spacing along {name} is {spacing:.3g} mm", spacing, training.spacing[axis]),
            (f"{side} voxels along {name}", side, training.shape[axis]),
        ):
            if not low * (1 - GEOMETRY_MARGIN) <= value <= high * (1 + GEOMETRY_MARGIN):
                found.append(f"{phrase} (training {_format_range(low, high)})")
    return found


def _unusual_intensities(values: Mapping[str, float], ranges: Mapping[str, Range], volumes: int) -> list[str]:
    least = MIN_INTENSITY_MARGIN * abs(ranges["p99"][1] - ranges["p01"][0])
    found = []
    for name, words in STATISTICS.items():
        low, high = ranges[name]
        margin = max(_intensity_margin(volumes) * (high - low), least)
        if not low - margin <= values[name] <= high + margin:
            found.append(f"intensity {words} is {values[name]:.3g} (training {_format_range(low, high)})")
    return found


def _intensity_margin(volumes: int) -> float:
    """Return the part of a range that is allowed beyond it; few volumes are exceeded easily by chance."""
    return INTENSITY_MARGIN + 2 / volumes


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


def _extremes(values: Sequence[float]) -> Range:
    return min(values), max(values)


def _format_range(low: float, high: float) -> str:
    first, last = f"{low:.3g}", f"{high:.3g}"
    return first if first == last else f"{first} to {last}"
