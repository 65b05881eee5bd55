"""Decide which rows are of one subject, and refuse a subject or an image in two splits.

A subject is never in two splits, so one person under two names would leak from training into the test. Names
that a table shows to be equal get one form (`7.0` is `7` in a column of whole numbers). Names that are alike
but for capitals, leading zeros or punctuation are kept apart, and reported.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from voxlift.data_pipelines.errors import ManifestError, list_some

if TYPE_CHECKING:
    from voxlift.data_pipelines.tables.manifest import Manifest, Record


# Kinds of notes on names that may leak.
SUBJECT_NOTES = ("similar_subjects", "shared_folders", "files_of_one_subject")
_BIDS_SUBJECT = re.compile(r"(?:^|.*/)(sub-[A-Za-z0-9]+)[_/].*")
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0+")
_FRACTION = re.compile(r"[+-]?[0-9]*\.[0-9]*[1-9][0-9]*")
_NUMBER_AT_END = re.compile(r"(.*?)([0-9]+)")
_POWER_OF_TEN = re.compile(r"[0-9]+(?:\.[0-9]+)?[eE]\+?[0-9]{1,2}")
_PARTS = re.compile(r"\d+|[^\d ]+")
_LOOKALIKES = str.maketrans(  # Cyrillic and Greek letters that look like Latin ones
    "АВЕКМНОРСТУХІЅЈаеорсухіѕјΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",  # noqa: RUF001
    "ABEKMHOPCTYXISJaeopcyxisjABEZHIKMNOPTYX",
)


def unify_subjects(names: Sequence[str]) -> list[str]:
    """Return each subject's name in the form that all its rows share.

    Unicode is composed (NFC). Whole numbers lose the `.0` that a spreadsheet or pandas gives a column with
    gaps, unless another name of the column is a fraction, so that `1.0` may be a version.

    >>> unify_subjects(["7", "7.0", "007"]), unify_subjects(["1.0", "1.1"])
    (['7', '7', '007'], ['1.0', '1.1'])

    Args:
        names: One per row.
    """
    composed = [unicodedata.normalize("NFC", name) for name in names]
    if any(map(_FRACTION.fullmatch, composed)):
        return composed
    return [found[1] if (found := _WHOLE.fullmatch(name)) else name for name in composed]


def find_similar_subjects(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return groups of different names that may be one subject's: alike but for how they are written.

    Capitals, leading zeros, punctuation, blanks, invisible characters, and letters that look alike do not
    count; the order and the values of the numbers do.

    >>> find_similar_subjects(["sub-01", "SUB_1", "sub-11", "1-11", "11-1"])
    (('SUB_1', 'sub-01'),)
    """
    groups = defaultdict[tuple[str, ...], set[str]](set)
    for name in names:
        groups[_comparable(name)].add(name)
    return tuple(sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1))


def describe_similar_subjects(names: Iterable[str]) -> str:
    """Return a sentence on the subjects whose names are alike; empty where there are none."""
    groups = find_similar_subjects(names)
    if not groups:
        return ""
    listed = list_some((" and ".join(map(repr, group)) for group in groups), limit=5)
    return (
        f"Subjects whose names are alike but for their writing count as different: {listed}. If they are one "
        "person, write one name in the table, or that person can be in two splits."
    )


def describe_files_of_subjects(files: Iterable[str]) -> str:
    """Return a sentence on files that count as subjects, but are of one by their BIDS names; maybe empty.

    >>> describe_files_of_subjects(["sub-01_T1w.nii", "sub-02_T1w.nii"])
    ''

    Args:
        files: Paths, each of which counts as a subject.
    """
    files_of = defaultdict[str, set[str]](set)
    for file in files:
        if found := _BIDS_SUBJECT.fullmatch(file):
            files_of[found[1]].add(file)
    repeated = [f"{subject} ({len(own)})" for subject, own in sorted(files_of.items()) if len(own) > 1]
    if not repeated:
        return ""
    return (
        f"Several files of one subject by their names count as different subjects: {list_some(repeated)}. "
        "Set data.subject_column, or in a folder per class put them into a folder of that subject."
    )


def describe_several_labels(records: Iterable[Record]) -> str:
    """Return a sentence on the subjects whose scans have several labels, with what follows; maybe empty."""
    labels_of = defaultdict[str, set[int]](set)
    for record in records:
        labels_of[record.subject].add(record.label)
    several = sorted(subject for subject, labels in labels_of.items() if len(labels) > 1)
    if not several:
        return ""
    return (
        f"{len(several)} of {len(labels_of)} subjects have scans of several labels: {list_some(several)}. "
        "All scans of a subject stay in one split; metrics are by scan, with intervals by subject. Of two "
        "classes evaluation.paired_within=subject adds how often the right scan of a subject scores higher."
    )


def name_by_class(subjects: Mapping[str, Sequence[str]]) -> tuple[bool, str]:
    """Return whether the subjects of a folder per class need the class in their name, and a sentence on it.

    Where the folders of each class are numbered from the start (`patient001` in all of them), one name is
    one person per class. Otherwise a name in several classes is one person.

    Args:
        subjects: For each class, the names of its subjects' folders.
    """
    classes_of = defaultdict[str, list[str]](list)
    for label, names in subjects.items():
        for name in dict.fromkeys(names):
            classes_of[name].append(label)
    shared = sorted(name for name, classes in classes_of.items() if len(classes) > 1)
    if not shared:
        return False, ""
    listed = list_some((f"{name} ({', '.join(classes_of[name])})" for name in shared), limit=5)
    if any(map(_is_first_number, shared)):
        return True, (
            f"Each class numbers its folders from the start: {listed}. They count as different persons, "
            f"named {classes_of[shared[0]][0]}/{shared[0]} and so on. If one name is one person, use a table "
            "with data.subject_column."
        )
    return False, (
        f"Folders of one name in several classes count as one person: {listed}. If they are different "
        "persons, use a table with data.subject_column."
    )


def _is_first_number(name: str) -> bool:
    """Return whether a name ends in the number 0 or 1, with which a numbering starts.

    >>> [_is_first_number(name) for name in ("patient001", "0", "002_S_0295", "mary")]
    [True, True, False, False]
    """
    found = _NUMBER_AT_END.fullmatch(name)
    return found is not None and int(found[2]) <= 1


def _comparable(name: str) -> tuple[str, ...]:
    """Return the letters and numbers of a name, in order, as `find_similar_subjects` compares them."""
    if _POWER_OF_TEN.fullmatch(name):  # a spreadsheet shows long numbers so, rounded
        name = f"{Decimal(name):.0f}"
    plain = unicodedata.normalize("NFKC", name.translate(_LOOKALIKES)).casefold()
    visible = [char for char in plain if unicodedata.category(char) != "Cf"]
    text = "".join(" " if unicodedata.category(char)[0] in "CPSZ" else char for char in visible)
    parts = _PARTS.findall(text)
    return tuple(_drop_zeros(part) if part[0].isdecimal() else part for part in parts) or (name,)


def _drop_zeros(digits: str) -> str:
    return "".join(str(unicodedata.decimal(digit)) for digit in digits).lstrip("0") or "0"


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
    groups: defaultdict[str, dict[str, Record]] = defaultdict(dict)
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
