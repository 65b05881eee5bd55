"""Metadata beside each prepared volume: voxel hashes for the leak check, a summary for the input ranges.

Both are computed from the decoded image while the cache prepares it, so that no image is decoded twice. For
entries without metadata (of an earlier version) the images are decoded once more, and the metadata is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from voxlift.data_pipelines.atomic import atomic_write
from voxlift.data_pipelines.cache.format import PreparedVolumes
from voxlift.data_pipelines.cache.ranges import VolumeSummary, summarize_volume
from voxlift.data_pipelines.preprocess.prepare import read_record
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.readers.identity import hash_image, is_blank
from voxlift.data_pipelines.volume import Array, Stored


@dataclass(frozen=True)
class VolumeMetadata:
    """What was learned of one record while it was prepared.

    Attributes:
        voxel_hashes: Per image the hash of its decoded voxels, see `hash_image`; None for a blank image,
            which equals other blank images without being a copy of them.
        summary: Geometry of the first image and statistics of the prepared voxels.
    """

    voxel_hashes: tuple[str | None, ...]
    summary: VolumeSummary

    def combine_hashes(self, images: Sequence[Path]) -> str:
        """Return one hash of the record: equal for two records whose images show the same voxels.

        Args:
            images: The record's images; the path of a blank one stands for its hash.
        """
        pairs = zip(self.voxel_hashes, images, strict=True)
        return "+".join(f"blank {image}" if digest is None else digest for digest, image in pairs)


def extract_metadata(stored: Sequence[Stored], prepared: Array) -> VolumeMetadata:
    """Return the metadata of a record.

    Args:
        stored: Its images as `read_record` returns them.
        prepared: Its prepared voxels `[D, H, W, C]`, in the type of the cache.
    """
    hashes = tuple(None if is_blank(one) else hash_image(one) for one in stored)
    return VolumeMetadata(hashes, summarize_volume(stored, prepared))


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
        summary = saved["summary"]
        return VolumeMetadata(
            tuple(saved["voxel_hashes"]),
            VolumeSummary(
                spacing=tuple(summary["spacing"]),
                shape=tuple(summary["shape"]),
                axcodes=summary["axcodes"],
                channels=tuple(summary["channels"]),
            ),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _metadata_path(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")
