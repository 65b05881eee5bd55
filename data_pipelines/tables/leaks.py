"""Refuse a data set whose splits share a subject, or share voxels under two names.

Reading every volume for its hash takes as long as an epoch, so hashes are kept in a small file, keyed by
path, size and modification time: a second run reads only new or changed files.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from voxlift.data_pipelines.atomic import atomic_write
from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.readers.identity import identify_image
from voxlift.data_pipelines.tables.manifest import Manifest, Record


@dataclass(frozen=True)
class Leak:
    """Two records that share a subject or voxels, but are in two splits.

    Args:
        first: One record.
        second: The other.
        splits: Their splits, in this order.
        shared: "subject" or "voxels".
    """

    first: Record
    second: Record
    splits: tuple[str, str]
    shared: str

    def __str__(self) -> str:
        names = f"{self.first.images[0]} ({self.splits[0]}) and {self.second.images[0]} ({self.splits[1]})"
        return f"subject {self.first.subject}: {names}" if self.shared == "subject" else names


def find_subject_leaks(manifest: Manifest, splits: Sequence[str]) -> tuple[Leak, ...]:
    """Return one leak for each subject and further split that it is in.

    Args:
        manifest: The records.
        splits: One per record.
    """
    return _find_leaks(manifest, splits, [record.subject for record in manifest.records], "subject")


def find_voxel_leaks(manifest: Manifest, splits: Sequence[str], *, hashes: Sequence[str]) -> tuple[Leak, ...]:
    """Return one leak for each volume whose voxels are in another split too.

    Args:
        manifest: The records.
        splits: One per record.
        hashes: One per record, from `hash_records`.
    """
    return _find_leaks(manifest, splits, hashes, "voxels")


def refuse_leaks(manifest: Manifest, splits: Sequence[str], *, hashes: Sequence[str] | None = None) -> None:
    """Raise an error if a subject, or with hashes a volume, is in two splits.

    Args:
        manifest: The records.
        splits: One per record.
        hashes: One per record, from `hash_records`; with None only subjects are compared.

    Raises:
        ManifestError: There are leaks. The message lists ten pairs at most, and counts the rest.
    """
    subjects = find_subject_leaks(manifest, splits)
    if subjects:
        raise ManifestError(
            f"{manifest.source}: a subject is in two splits, {_count_pairs(subjects)}: "
            f"{list_some(subjects)}. "
            "Put all volumes of a subject in one split."
        )
    volumes = () if hashes is None else find_voxel_leaks(manifest, splits, hashes=hashes)
    if volumes:
        raise ManifestError(
            f"{manifest.source}: the same voxels are in two splits, {_count_pairs(volumes)}: "
            f"{list_some(volumes)}. "
            "Give both files the same subject, or remove one."
        )


def _find_leaks(
    manifest: Manifest, splits: Sequence[str], keys: Iterable[str], shared: str
) -> tuple[Leak, ...]:
    groups = defaultdict[str, dict[str, Record]](dict)
    for record, split, key in zip(manifest.records, splits, keys, strict=True):
        # The first record of a split stands for the others, so that a leak is reported once.
        groups[key].setdefault(split, record)
    leaks = []
    for by_split in groups.values():
        (split, first), *others = by_split.items()
        leaks += [Leak(first, record, (split, other), shared) for other, record in others]
    return tuple(leaks)


def _count_pairs(found: Sequence[Leak]) -> str:
    return "1 pair of files" if len(found) == 1 else f"{len(found)} pairs of files"


def hash_records(
    records: Sequence[Record],
    *,
    hash_file: Callable[[Path], str | None],
    cache: str | Path | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[str, ...]:
    """Return a hash of each record's decoded voxels, all channels together.

    Args:
        records: The records whose images are hashed.
        hash_file: Hashes the decoded voxels of one image; None where it cannot be read. Such an image equals
            no other, and is tried again in the next run.
        cache: JSON file that keeps hashes from run to run; None to keep none.
        workers: Number of threads that read.
        progress: Called with (hashed, to hash) after each file.
    """
    path = Path(cache).expanduser() if cache is not None else None
    known = _read_cache(path)
    images = list(dict.fromkeys(image for record in records for image in record.images))
    keys = {image: _cache_key(image) for image in images}
    missing = [image for image in images if keys[image] not in known]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        digests = zip(missing, pool.map(hash_file, missing), strict=True)
        for done, (image, digest) in enumerate(digests, start=1):
            if digest is not None:
                known[keys[image]] = digest
            if progress is not None:
                progress(done, len(missing))
    if path is not None and missing:
        _write_cache(path, known)
    return tuple(
        "+".join(known.get(keys[image], f"unreadable {image}") for image in record.images)
        for record in records
    )


def _cache_key(image: Path) -> str:
    return "|".join(f"{path}:{size}:{time}" for path, size, time in identify_image(image))


def _read_cache(path: Path | None) -> dict[str, str]:
    if path is None or not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        # With a damaged cache all files are read again, and the result is the same.
        return {}
    return {str(key): str(value) for key, value in stored.items()} if isinstance(stored, dict) else {}


def _write_cache(path: Path, known: dict[str, str]) -> None:
    # Without a cache the next run reads the files again.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(known), encoding="utf-8")
