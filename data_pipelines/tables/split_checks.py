"""Count subjects and volumes per split, and refuse splits that no model could be trained or scored on."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.tables.manifest import Manifest
from voxlift.data_pipelines.tables.reader import is_number
from voxlift.data_pipelines.tables.rows import CALIBRATION, SPLITS

log = logging.getLogger("voxlift")


@dataclass(frozen=True)
class SplitCount:
    """The number of subjects and volumes of a class in a split (a subject of two labels counts twice)."""

    split: str
    class_name: str
    subjects: int
    volumes: int


def split_table(manifest: Manifest, splits: Sequence[str]) -> tuple[SplitCount, ...]:
    """Return the number of subjects and volumes per split and class, splits in the order train, val, test.

    Args:
        manifest: The records.
        splits: One per record.
    """
    subjects = defaultdict[tuple[str, int], set[str]](set)
    volumes = Counter[tuple[str, int]]()
    for record, split in zip(manifest.records, splits, strict=True):
        subjects[split, record.label].add(record.subject)
        volumes[split, record.label] += 1
    return tuple(
        SplitCount(split, name, len(subjects[split, label]), volumes[split, label])
        for split in (*SPLITS, CALIBRATION)
        if split in splits
        for label, name in enumerate(manifest.classes)
    )


def _check_counts(manifest: Manifest, splits: int) -> None:
    """Raise an error if a class has fewer subjects than there are splits."""
    subjects = defaultdict[int, set[str]](set)
    for record in manifest.records:
        subjects[record.label].add(record.subject)
    too_few = [
        f"{name!r} has {len(subjects[label])}"
        for label, name in enumerate(manifest.classes)
        if len(subjects[label]) < splits
    ]
    if too_few:
        raise ManifestError(
            f"{splits} splits need {splits} subjects of every class, but in {manifest.source} the class "
            f"{list_some(too_few)}. {_how_to_fix(manifest.classes)}"
        )


def _how_to_fix(classes: Sequence[str]) -> str:
    if len(classes) > 2 and all(map(is_number, classes)):
        return (
            "A numeric label is predicted as a number by task=number, or cut into classes by "
            "'data.label_bins=[EDGE]' 'data.classes=[BELOW,FROM_IT_ON]'."
        )
    return "Use fewer splits or folds, or leave the class out of data.classes."


def _check_classes(manifest: Manifest, splits: Sequence[str]) -> None:
    """Raise an error if train lacks a class or another split has fewer than two; warn if it lacks one."""
    counts = split_table(manifest, splits)
    absent = [(count.split, count.class_name) for count in counts if not count.volumes]
    present = Counter(count.split for count in counts if count.volumes)
    fatal = [(split, name) for split, name in absent if split == "train" or present[split] < 2]
    listed = list_some(f"{split} has no {name!r}" for split, name in fatal or absent)
    if fatal or "train" not in splits:
        raise ManifestError(
            f"The train split of {manifest.source} must have every class, the other splits two at least, but "
            f"{listed or 'there is no train split'}. "
            "Use fewer splits or folds, or leave the class out of data.classes."
        )
    if absent:
        log.warning("%s, so that split is scored without it", listed)


def count_findings(manifest: Manifest, splits: Sequence[str]) -> dict[tuple[str, str], tuple[int, int]]:
    """Return for each split and finding how many subjects have it in a volume, and lack it in a volume."""
    present, absent = defaultdict[tuple[str, str], set[str]](set), defaultdict[tuple[str, str], set[str]](set)
    for record, split in zip(manifest.records, splits, strict=True):
        for name, value in zip(manifest.classes, record.targets, strict=True):
            for found, wanted in ((present, 1.0), (absent, 0.0)):
                if value == wanted:
                    found[split, name].add(record.subject)
    return {
        (split, name): (len(present[split, name]), len(absent[split, name]))
        for split in (*SPLITS, CALIBRATION)
        if split in splits
        for name in manifest.classes
    }


def _check_finding_counts(manifest: Manifest, splits: int) -> None:
    """Raise an error if a finding has or lacks fewer subjects than there are splits."""
    counts = count_findings(manifest, ["train"] * len(manifest.records))
    too_few = [
        f"{name} is {word} in {count}"
        for (_, name), both in counts.items()
        for word, count in zip(("present", "absent"), both, strict=True)
        if count < splits
    ]
    if too_few:
        raise ManifestError(
            f"{splits} splits need {splits} subjects with and {splits} without every finding, but in "
            f"{manifest.source} {list_some(too_few)}. Use fewer splits or folds, or leave the finding out "
            "of data.label_columns."
        )


def _check_finding_splits(manifest: Manifest, splits: Sequence[str]) -> None:
    """Raise an error if training knows a finding from one side only; warn where another split does."""
    absent = [
        (split, f"{split} has no subject {word} {name}")
        for (split, name), both in count_findings(manifest, splits).items()
        for word, count in zip(("with", "without"), both, strict=True)
        if not count
    ]
    fatal = [sentence for split, sentence in absent if split == "train"]
    if fatal or "train" not in splits:
        raise ManifestError(
            f"The train split of {manifest.source} must have subjects with and without every finding, but "
            f"{list_some(fatal) or 'there is no train split'}. Use fewer splits or folds, or leave the "
            "finding out of data.label_columns."
        )
    if absent:
        log.warning("%s, so it is not scored there", list_some(sentence for _, sentence in absent))


def _check_number_counts(manifest: Manifest, splits: int) -> None:
    """Raise an error if there are fewer than two subjects per split."""
    count = len({record.subject for record in manifest.records})
    if count < 2 * splits:
        raise ManifestError(
            f"{splits} splits need {2 * splits} subjects, but {manifest.source} has {count}. Use fewer "
            "splits or folds."
        )


def _check_number_splits(manifest: Manifest, splits: Sequence[str]) -> None:
    """Raise an error if the number is the same for all training subjects."""
    trained = {one.targets for one, split in zip(manifest.records, splits, strict=True) if split == "train"}
    if len(trained) < 2:
        raise ManifestError(
            f"The train split of {manifest.source} needs two values of {manifest.classes[0]} or more; it has "
            f"{len(trained)}. Use fewer splits or folds."
        )


CHECKS = {
    "classes": (_check_counts, _check_classes),
    "findings": (_check_finding_counts, _check_finding_splits),
    "number": (_check_number_counts, _check_number_splits),
}  # by `Manifest.target`: before subjects are assigned, and afterwards
