"""Who trains, who validates, who tests: by subject, stratified by label, the same for every row order.

A subject's stratum is the most frequent label of its volumes (the lowest class index of equals). Fractions
are of the subjects that are dealt out: all of them, or, where the table has its own split column, those that
it calls train. Within each class the numbers are exact to one subject, and in total to one subject per split,
but that every class gives each split one subject at least, however small its share.

Repeated cross-validation is `assign_splits(..., folds=5, fold=k, seed=s)` for each k and each s. Nested
cross-validation keeps, for each outer fold, the records outside its test part (`select_records`) and calls
`assign_splits(..., folds=4, fold=j)` on those: no inner fold ever sees an outer test subject.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from voxlift.data_pipelines.tables.labels import is_number
from voxlift.data_pipelines.tables.manifest import Manifest, ManifestError
from voxlift.data_pipelines.tables.reader import list_some
from voxlift.data_pipelines.tables.rows import SPLITS

log = logging.getLogger("voxlift")


@dataclass(frozen=True)
class SplitCount:
    """How many subjects and volumes of a class a split holds (a subject of two labels counts twice)."""

    split: str
    class_name: str
    subjects: int
    volumes: int


def assign_splits(
    manifest: Manifest, *, val: float, test: float, seed: int, folds: int = 0, fold: int = 0
) -> tuple[str, ...]:
    """Returns "train", "val" or "test" for each record, in record order.

    Args:
        manifest: The records; where they carry a split of their own, it is kept, and only a split that the
            table lacks is cut from its train subjects.
        val: Fraction for validation, 0 for none.
        test: Fraction for testing, 0 for none; unused with folds.
        seed: Of the shuffle; the test parts of all folds come from one shuffle.
        folds: Number of cross-validation folds, 0 for a single split.
        fold: Which fold is the test part, from 0; val is cut from the rest.

    Raises:
        ManifestError: A fraction or fold is out of range, a subject is in two splits, a class has fewer
            subjects than there are splits, train lacks a class, or another split holds fewer than two.
    """
    _check_request(manifest, val, test, folds, fold)
    strata = _strata(manifest)
    if any(record.split for record in manifest.records):
        chosen = _from_table(manifest, strata, val, test, seed)
    elif folds:
        _check_counts(manifest, 4 if folds == 2 and val > 0 else folds)
        chosen = _by_fold(strata, val, seed, folds, fold)
    else:
        _check_counts(manifest, 1 + (val > 0) + (test > 0))
        chosen = _deal(strata, {"val": val, "test": test}, np.random.default_rng(seed))
    splits = tuple(chosen[record.subject] for record in manifest.records)
    _check_classes(manifest, splits)
    return splits


def split_table(manifest: Manifest, splits: Sequence[str]) -> tuple[SplitCount, ...]:
    """Returns the subjects and volumes per split and class, splits in the order train, val, test.

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
    """Returns the manifest of the records in the splits `keep`, free to be split again.

    Args:
        manifest: The records.
        splits: One per record.
        keep: Those whose records stay.
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
            f"splits.val={val} and splits.test={test} must be fractions that leave some for training."
        )
    if folds and not (folds >= 2 and 0 <= fold < folds):
        raise ManifestError(
            f"splits.fold={fold} of splits.folds={folds}: expected two folds or more, fold from 0 on."
        )
    if folds and val + 1 / folds >= 1:
        raise ManifestError(
            f"splits.val={val} and {folds} folds leave nobody for training. Lower splits.val."
        )
    if folds and any(record.split for record in manifest.records):
        raise ManifestError(
            f"{manifest.source} brings its own split, and splits.folds={folds} asks for another. Leave "
            "one out."
        )


def _strata(manifest: Manifest) -> dict[str, int]:
    """Returns subject -> most frequent label, sorted by subject so that row order cannot matter."""
    labels = defaultdict[str, Counter[int]](Counter)
    for record in manifest.records:
        labels[record.subject][record.label] += 1
    return {
        subject: min(counts, key=lambda label: (-counts[label], label))
        for subject, counts in sorted(labels.items())
    }


def _shuffled(strata: dict[str, int], rng: np.random.Generator) -> list[list[str]]:
    """Returns per class its subjects in random order."""
    by_class = [
        [subject for subject, own in strata.items() if own == label] for label in sorted(set(strata.values()))
    ]
    return [[members[index] for index in rng.permutation(len(members))] for members in by_class]


def _deal(strata: dict[str, int], fractions: dict[str, float], rng: np.random.Generator) -> dict[str, str]:
    """Returns subject -> split: each class gives every split its share, the rest trains."""
    groups = _shuffled(strata, rng)
    chosen = dict.fromkeys(strata, "train")
    given = [0] * len(groups)
    waiting = sum(fraction > 0 for fraction in fractions.values())
    for split, fraction in fractions.items():
        waiting -= fraction > 0
        for index, share in enumerate(_shares([len(group) for group in groups], fraction)):
            # One subject of the class stays for training, and one for each split still to come.
            first, most = given[index], len(groups[index]) - 1 - waiting
            given[index] = max(first, min(first + share, most))
            chosen.update(dict.fromkeys(groups[index][first : given[index]], split))
    return chosen


def _shares(sizes: Sequence[int], fraction: float) -> list[int]:
    """Returns how many of each class a split gets: rounded so that the sum is right, and at least one.

    >>> _shares([10, 5, 5], 0.3)
    [3, 2, 1]
    """
    if fraction <= 0:
        return [0] * len(sizes)
    exact = [round(size * fraction, 9) for size in sizes]
    shares = [int(value) for value in exact]
    spare = round(sum(sizes) * fraction) - sum(shares)
    largest_remainder = sorted(range(len(sizes)), key=lambda index: (shares[index] - exact[index], index))
    for index in largest_remainder[: max(0, spare)]:
        shares[index] += 1
    return [max(1, share) for share in shares]


def _by_fold(strata: dict[str, int], val: float, seed: int, folds: int, fold: int) -> dict[str, str]:
    # Dealing the classes one after the other around the table keeps both classes and folds even to one
    # subject.
    order = [subject for group in _shuffled(strata, np.random.default_rng(seed)) for subject in group]
    tested = set(order[fold::folds])
    rest = {subject: label for subject, label in strata.items() if subject not in tested}
    share_of_rest = val * len(strata) / max(1, len(rest))
    chosen = _deal(rest, {"val": share_of_rest}, np.random.default_rng((seed, fold)))
    return {subject: chosen.get(subject, "test") for subject in strata}


def _from_table(
    manifest: Manifest, strata: dict[str, int], val: float, test: float, seed: int
) -> dict[str, str]:
    named = defaultdict[str, set[str]](set)
    for record in manifest.records:
        named[record.subject].add(record.split or "train")
    torn = [
        f"{subject} ({', '.join(sorted(splits))})"
        for subject, splits in sorted(named.items())
        if len(splits) > 1
    ]
    if torn:
        raise ManifestError(
            f"{manifest.source} puts {len(torn)} subjects in two splits: {list_some(torn)}. "
            "All volumes of a subject belong in one."
        )
    chosen = {subject: min(splits) for subject, splits in named.items()}
    present = set(chosen.values())
    free = {subject: strata[subject] for subject in strata if chosen[subject] == "train"}
    lacking = {split: share for split, share in (("val", val), ("test", test)) if split not in present}
    return chosen | _deal(free, lacking, np.random.default_rng(seed))


def _check_counts(manifest: Manifest, parts: int) -> None:
    holders = defaultdict[int, set[str]](set)
    for record in manifest.records:
        holders[record.label].add(record.subject)
    few = [
        f"{name!r} has {len(holders[label])}"
        for label, name in enumerate(manifest.classes)
        if len(holders[label]) < parts
    ]
    if few:
        raise ManifestError(
            f"{parts} splits need {parts} subjects of every class, but of {manifest.source} the class "
            f"{list_some(few)}. {_way_out(manifest.classes)}"
        )


def _way_out(classes: Sequence[str]) -> str:
    """Fewer parts, or other classes; a number for a label wants to be cut into classes."""
    if len(classes) > 2 and all(is_number(name) for name in classes):
        return "Cut a number into classes: 'data.label_bins=[EDGE]' 'data.classes=[BELOW,FROM_IT_ON]'."
    return "Ask for fewer splits or folds, or leave the class out of data.classes."


def _check_classes(manifest: Manifest, splits: Sequence[str]) -> None:
    """Training needs every class; a table's own val or test that lacks one is scored without it."""
    counts = split_table(manifest, splits)
    lacks = [(count.split, count.class_name) for count in counts if not count.volumes]
    left = Counter(count.split for count in counts if count.volumes)
    spoiling = [(split, name) for split, name in lacks if split == "train" or left[split] < 2]
    said = [f"{split} has no {name!r}" for split, name in spoiling or lacks]
    if spoiling or "train" not in splits:
        raise ManifestError(
            f"The train split of {manifest.source} must hold every class, the others two at least, but "
            f"{list_some(said) or 'there is no train split'}. "
            "Use fewer splits or folds, or leave the class out of data.classes."
        )
    if lacks:
        log.warning("%s, so that split says nothing of it", list_some(said))
