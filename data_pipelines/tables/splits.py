"""Assign subjects to train, val and test: stratified by label, independent of the order of rows.

A subject's stratum is the most frequent label of its volumes (of equally frequent ones the lowest class
index). Fractions are of the subjects to be split: all of them, or, where the table has its own split column,
those in its train split. Within each class the numbers are exact to one subject, and in total to one subject
per split, except that every class gives each split at least one subject, however small the fraction.

Repeated cross-validation is `assign_splits(..., folds=5, fold=k, seed=s)` for each k and each s. Nested
cross-validation keeps, for each outer fold, the records outside its test split (`select_records`) and calls
`assign_splits(..., folds=4, fold=j)` on those: no inner fold ever sees an outer test subject.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.tables.manifest import Manifest
from voxlift.data_pipelines.tables.rows import SPLITS
from voxlift.data_pipelines.tables.values import is_number

log = logging.getLogger("voxlift")


@dataclass(frozen=True)
class SplitCount:
    """The number of subjects and volumes of a class in a split (a subject of two labels counts twice)."""

    split: str
    class_name: str
    subjects: int
    volumes: int


def assign_splits(
    manifest: Manifest, *, val: float, test: float, seed: int, folds: int = 0, fold: int = 0
) -> tuple[str, ...]:
    """Return "train", "val" or "test" for each record, in record order.

    Args:
        manifest: The records. Where they have a split of their own, it is kept, and only a split that the
            table lacks is taken from its train subjects.
        val: Fraction for validation, 0 for none.
        test: Fraction for testing, 0 for none; unused with folds.
        seed: Of the shuffle; the test splits of all folds come from one shuffle.
        folds: Number of cross-validation folds, 0 for a single split.
        fold: Which fold is the test split, from 0; val is taken from the rest.

    Raises:
        ManifestError: A fraction or fold is out of range, a subject is in two splits, a class has fewer
            subjects than there are splits, train lacks a class, or another split has fewer than two.
    """
    _check_request(manifest, val, test, folds, fold)
    strata = _find_strata(manifest)
    if any(record.split for record in manifest.records):
        chosen = _split_by_table(manifest, strata, {"val": val, "test": test}, seed)
    elif folds:
        _check_counts(manifest, 4 if folds == 2 and val > 0 else folds)
        chosen = _split_by_fold(strata, val, seed, folds, fold)
    else:
        _check_counts(manifest, 1 + (val > 0) + (test > 0))
        chosen = _split_by_fraction(strata, {"val": val, "test": test}, np.random.default_rng(seed))
    splits = tuple(chosen[record.subject] for record in manifest.records)
    _check_classes(manifest, splits)
    return splits


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
        for split in SPLITS
        if split in splits
        for label, name in enumerate(manifest.classes)
    )


def select_records(
    manifest: Manifest, splits: Sequence[str], *, keep: Sequence[str] = ("train", "val")
) -> Manifest:
    """Return the manifest of the records in some splits, without their splits, so that it can be split again.

    Args:
        manifest: The records.
        splits: One per record.
        keep: The splits whose records are kept.
    """
    records = tuple(
        replace(record, split=None)
        for record, split in zip(manifest.records, splits, strict=True)
        if split in keep
    )
    return replace(manifest, records=records)


def _check_request(manifest: Manifest, val: float, test: float, folds: int, fold: int) -> None:
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise ManifestError(
            f"splits.val={val} and splits.test={test}: expected fractions whose sum is below 1, so that some "
            "subjects are left for training."
        )
    if folds and not (folds >= 2 and 0 <= fold < folds):
        raise ManifestError(
            f"splits.fold={fold} of splits.folds={folds}: expected two folds or more, and a fold from 0 to "
            "folds - 1."
        )
    if folds and val + 1 / folds >= 1:
        raise ManifestError(
            f"splits.val={val} and splits.folds={folds} leave no subjects for training. Lower splits.val."
        )
    if folds and any(record.split for record in manifest.records):
        raise ManifestError(
            f"{manifest.source} has a split column, and splits.folds={folds} asks for another split. Remove "
            "one of them."
        )


def _find_strata(manifest: Manifest) -> dict[str, int]:
    """Return the most frequent label of each subject, sorted by subject so that row order has no effect."""
    labels = defaultdict[str, Counter[int]](Counter)
    for record in manifest.records:
        labels[record.subject][record.label] += 1
    return {subject: _most_frequent(counts) for subject, counts in sorted(labels.items())}


def _most_frequent(counts: Counter[int]) -> int:
    highest = max(counts.values())
    return min(label for label, count in counts.items() if count == highest)


def _shuffle_classes(strata: dict[str, int], rng: np.random.Generator) -> list[list[str]]:
    """Return for each class its subjects in random order."""
    by_class = [
        [subject for subject, own in strata.items() if own == label] for label in sorted(set(strata.values()))
    ]
    return [[subjects[index] for index in rng.permutation(len(subjects))] for subjects in by_class]


def _split_by_fraction(
    strata: dict[str, int], fractions: dict[str, float], rng: np.random.Generator
) -> dict[str, str]:
    """Return each subject's split: every class gives each split its fraction, the rest trains."""
    groups = _shuffle_classes(strata, rng)
    chosen = dict.fromkeys(strata, "train")
    assigned = [0] * len(groups)
    splits_to_come = sum(fraction > 0 for fraction in fractions.values())
    for split, fraction in fractions.items():
        splits_to_come -= fraction > 0
        for index, count in enumerate(_round_counts([len(group) for group in groups], fraction)):
            # One subject of the class stays for training, and one for each split still to come.
            first, most = assigned[index], len(groups[index]) - 1 - splits_to_come
            assigned[index] = max(first, min(first + count, most))
            chosen.update(dict.fromkeys(groups[index][first : assigned[index]], split))
    return chosen


def _round_counts(sizes: Sequence[int], fraction: float) -> list[int]:
    """Return how many subjects of each class a split gets: rounded to the right sum, and at least one.

    >>> _round_counts([10, 5, 5], 0.3)
    [3, 2, 1]
    """
    if fraction <= 0:
        return [0] * len(sizes)
    exact = [round(size * fraction, 9) for size in sizes]
    counts = [int(value) for value in exact]
    spare = max(0, round(sum(sizes) * fraction) - sum(counts))
    remainders = sorted(
        (count - value, index) for index, (count, value) in enumerate(zip(counts, exact, strict=True))
    )
    for _, index in remainders[:spare]:
        counts[index] += 1
    return [max(1, count) for count in counts]


def _split_by_fold(strata: dict[str, int], val: float, seed: int, folds: int, fold: int) -> dict[str, str]:
    # Every folds-th subject of one list, class after class, keeps classes and folds even to one subject.
    order = [subject for group in _shuffle_classes(strata, np.random.default_rng(seed)) for subject in group]
    tested = set(order[fold::folds])
    rest = {subject: label for subject, label in strata.items() if subject not in tested}
    fraction_of_rest = val * len(strata) / max(1, len(rest))
    chosen = _split_by_fraction(rest, {"val": fraction_of_rest}, np.random.default_rng((seed, fold)))
    return {subject: chosen.get(subject, "test") for subject in strata}


def _split_by_table(
    manifest: Manifest, strata: dict[str, int], fractions: dict[str, float], seed: int
) -> dict[str, str]:
    """Return each subject's split in the table; splits that it lacks are taken from its train split."""
    splits_of = defaultdict[str, set[str]](set)
    for record in manifest.records:
        splits_of[record.subject].add(record.split or "train")
    leaking = [
        f"{subject} ({', '.join(sorted(splits))})"
        for subject, splits in sorted(splits_of.items())
        if len(splits) > 1
    ]
    if leaking:
        raise ManifestError(
            f"{manifest.source} puts {len(leaking)} subjects in two splits: {list_some(leaking)}. "
            "Put all volumes of a subject in one split."
        )
    chosen = {subject: min(splits) for subject, splits in splits_of.items()}
    trained = {subject: label for subject, label in strata.items() if chosen[subject] == "train"}
    present = set(chosen.values())
    missing = {split: fraction for split, fraction in fractions.items() if split not in present}
    return chosen | _split_by_fraction(trained, missing, np.random.default_rng(seed))


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
        return "Cut a numeric label into classes: 'data.label_bins=[EDGE]' 'data.classes=[BELOW,FROM_IT_ON]'."
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
