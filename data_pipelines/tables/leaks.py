"""Refuses a data set whose splits share a subject, or share voxels under two names.

Reading every volume for its hash takes as long as an epoch, so hashes are kept in a small file, keyed by
path, size and time of change: a second run reads only what is new or changed.
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
from voxlift.data_pipelines.readers.identity import identify_image
from voxlift.data_pipelines.tables.manifest import Manifest, ManifestError, Record
from voxlift.data_pipelines.tables.reader import list_some


@dataclass(frozen=True)
class Leak:
    """Two records that must not be in two splits, and are.

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
    """Returns one leak for each subject and further split that it is in.

    Args:
        manifest: The records.
        splits: One per record.
    """
    return _find(manifest, splits, [record.subject for record in manifest.records], "subject")


def find_voxel_leaks(manifest: Manifest, splits: Sequence[str], *, hashes: Sequence[str]) -> tuple[Leak, ...]:
    """Returns one leak for each volume whose voxels are in another split too.

    Args:
        manifest: The records.
        splits: One per record.
        hashes: One per record, from `hash_records`.
    """
    return _find(manifest, splits, hashes, "voxels")


def refuse_leaks(manifest: Manifest, splits: Sequence[str], *, hashes: Sequence[str] | None = None) -> None:
    """Passes when no subject, and with hashes no volume, is in two splits.

    Args:
        manifest: The records.
        splits: One per record.
        hashes: One per record, from `hash_records`; None looks at subjects alone.

    Raises:
        ManifestError: With the pairs, ten at most, the rest counted.
    """
    subjects = find_subject_leaks(manifest, splits)
    if subjects:
        raise ManifestError(
            f"{manifest.source}: a subject is in two splits, {_pairs(subjects)}: {list_some(subjects)}. "
            "All volumes of a subject belong in one split."
        )
    volumes = () if hashes is None else find_voxel_leaks(manifest, splits, hashes=hashes)
    if volumes:
        raise ManifestError(
            f"{manifest.source}: the same voxels are in two splits, {_pairs(volumes)}: "
            f"{list_some(volumes)}. "
            "Give both files the same subject, or remove one."
        )


def _pairs(found: Sequence[object]) -> str:
    return "1 pair of files" if len(found) == 1 else f"{len(found)} pairs of files"


def hash_records(
    records: Sequence[Record],
    *,
    hash_file: Callable[[Path], str | None],
    cache: str | Path | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[str, ...]:
    """Returns a hash of each record's decoded voxels, all channels together.

    Args:
        records: Whose images to hash.
        hash_file: Hashes the decoded voxels of one image; None where it cannot be read. Such an image equals
            no other, and is tried again by the next run.
        cache: JSON file that keeps hashes from run to run; None to keep none.
        workers: Threads that read.
        progress: Called with (hashed, to hash) after each file.
    """
    path = Path(cache).expanduser() if cache is not None else None
    known = _read_cache(path)
    images = list(dict.fromkeys(image for record in records for image in record.images))
    keys = {image: _identity(image) for image in images}
    absent = [image for image in images if keys[image] not in known]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        digests = zip(absent, pool.map(hash_file, absent), strict=True)
        for done, (image, digest) in enumerate(digests, start=1):
            if digest is not None:
                known[keys[image]] = digest
            if progress is not None:
                progress(done, len(absent))
    if path is not None and absent:
        _write_cache(path, known)
    return tuple(
        "+".join(known.get(keys[image], f"unreadable {image}") for image in record.images)
        for record in records
    )


def _find(manifest: Manifest, splits: Sequence[str], keys: Iterable[str], shared: str) -> tuple[Leak, ...]:
    groups = defaultdict[str, dict[str, Record]](dict)
    for record, split, key in zip(manifest.records, splits, keys, strict=True):
        # The first of a split stands for the others: a leak is reported once.
        groups[key].setdefault(split, record)
    leaks = []
    for homes in groups.values():
        (split, first), *others = homes.items()
        leaks += [Leak(first, record, (split, other), shared) for other, record in others]
    return tuple(leaks)


def _identity(image: Path) -> str:
    return "|".join(f"{path}:{size}:{time}" for path, size, time in identify_image(image))


def _read_cache(path: Path | None) -> dict[str, str]:
    if path is None or not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        # A damaged cache costs one more reading, never a wrong answer.
        return {}
    return {str(key): str(value) for key, value in stored.items()} if isinstance(stored, dict) else {}


def _write_cache(path: Path, known: dict[str, str]) -> None:
    # Hashes that cannot be kept cost the next run one more reading.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as place:
            place.write_text(json.dumps(known), encoding="utf-8")
