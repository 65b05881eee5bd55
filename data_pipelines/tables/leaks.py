"""Refuse a data set whose splits share a subject, or share voxels under two names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from voxlift.data_pipelines.errors import ManifestError, list_some
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
        hashes: One per record, equal where the images show the same voxels.
    """
    return _find_leaks(manifest, splits, hashes, "voxels")


def refuse_leaks(manifest: Manifest, splits: Sequence[str], *, hashes: Sequence[str] | None = None) -> None:
    """Raise an error if a subject, or with hashes a volume, is in two splits.

    Args:
        manifest: The records.
        splits: One per record.
        hashes: One per record, equal where the images show the same voxels; with None only subjects are
            compared.

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
