"""Assign subjects to train, val and test: stratified by label, independent of the order of rows.

Classes and grades are stratified by class, a number by its quantiles, and findings iteratively, so that a
rare finding is in every split (`stratify_iteratively`).

A subject's stratum is the most frequent label of its volumes (of equally frequent ones the lowest class
index). Fractions are of the subjects to be split: all of them, or, where the table has its own split column,
those in its train split. Within each class the numbers are exact to one subject, and in total to one subject
per split, except that every class gives each split at least one subject, however small the fraction.

Repeated cross-validation is `assign_splits(..., folds=5, fold=k, seed=s)` for each k and each s. Nested
cross-validation keeps, for each outer fold, the records outside its test split (`select_records`) and calls
`assign_splits(..., folds=4, fold=j)` on those: no inner fold ever sees an outer test subject.

A site is the value of a column of the table. Splits keep a site together where it takes the place of the
subject (`group_by_site`), or hold one site out (`leave_site_out`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.tables.manifest import Manifest
from voxlift.data_pipelines.tables.reader import is_missing, read_table
from voxlift.data_pipelines.tables.rows import CALIBRATION
from voxlift.data_pipelines.tables.split_checks import CHECKS

Strata = Mapping[str, int | tuple[bool, ...]]  # by subject: its stratum, or marks of findings
MOST_BINS = 10  # of a number
SUBJECTS_PER_BIN = 8  # so that each bin gives subjects to training and to the other splits


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
    check_counts, check_splits = CHECKS[manifest.target]
    strata = _find_strata(manifest)
    if any(record.split for record in manifest.records):
        chosen = _split_by_table(manifest, strata, {"val": val, "test": test}, seed)
    elif folds:
        check_counts(manifest, 4 if folds == 2 and val > 0 else folds)
        chosen = _split_by_fold(strata, val, seed, folds, fold)
    else:
        check_counts(manifest, 1 + (val > 0) + (test > 0))
        chosen = _split_by_fraction(strata, {"val": val, "test": test}, np.random.default_rng(seed))
    splits = tuple(chosen[record.subject] for record in manifest.records)
    check_splits(manifest, splits)
    return splits


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


def keep_training_fraction(
    manifest: Manifest, splits: Sequence[str], *, fraction: float, seed: int
) -> tuple[Manifest, tuple[str, ...]]:
    """Return the records and splits with a fraction of the training subjects; other splits stay whole.

    With the same seed the subjects of a smaller fraction are among those of a larger one. Each stratum keeps
    its fraction within one subject, and where strata are classes, grades or bins at least one.

    Args:
        manifest: The records.
        splits: One per record.
        fraction: Of the training subjects, above 0 and up to 1.
        seed: Of the order in which subjects are kept.
    """
    if fraction >= 1:
        return manifest, tuple(splits)
    trained = {
        record.subject for record, split in zip(manifest.records, splits, strict=True) if split == "train"
    }
    strata = {name: own for name, own in _find_strata(manifest).items() if name in trained}
    kept: set[str] = set()
    rng = np.random.default_rng((seed, 1))  # another sequence than that of the split
    for group in _shuffle_classes(strata, rng):
        places = (np.arange(len(group)) + rng.random()) / len(group)
        least = 0 if _are_findings(strata) else 1  # most sets of findings occur once
        kept.update(group[: max(least, int((places < fraction).sum()))])
    rows = [
        (record, split)
        for record, split in zip(manifest.records, splits, strict=True)
        if split != "train" or record.subject in kept
    ]
    return replace(manifest, records=tuple(record for record, _ in rows)), tuple(split for _, split in rows)


def keep_for_calibration(
    manifest: Manifest, splits: Sequence[str], *, fraction: float, seed: int
) -> tuple[str, ...]:
    """Return the splits with some training subjects in a fourth one, `calibration`, stratified as the others.

    Args:
        manifest: The records.
        splits: One per record; `val` and `test` stay as they are.
        fraction: Of all subjects, 0 for none.
        seed: Of the draw.

    Raises:
        ManifestError: The training has too few subjects.
    """
    if not fraction:
        return tuple(splits)
    strata = _find_strata(manifest)
    trained = {
        record.subject for record, split in zip(manifest.records, splits, strict=True) if split == "train"
    }
    own: Strata = {name: label for name, label in strata.items() if name in trained}
    share = fraction * len(strata) / max(1, len(own))
    smallest = min(map(len, _shuffle_classes(own, np.random.default_rng(0))), default=0)
    if share >= 1 or (smallest < 2 and not _are_findings(own)):
        raise ManifestError(
            f"splits.calibration={fraction:g}: {len(own)} subjects are left for training after the other "
            "splits, of some class fewer than two; lower splits.val, splits.test or splits.calibration."
        )
    rng = np.random.default_rng((seed, 2))  # another sequence than those of the other splits
    chosen = _split_by_fraction(own, {CALIBRATION: share}, rng)
    pairs = zip(manifest.records, splits, strict=True)
    return tuple(chosen[record.subject] if split == "train" else split for record, split in pairs)


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


def _find_strata(manifest: Manifest) -> Strata:
    """Return the stratum of each subject, sorted by subject so that row order has no effect.

    It is the most frequent class of the subject's volumes, the quantile of its mean number, or for each
    finding whether it is known to be present in a volume, then whether it is known to be absent.
    """
    if manifest.target == "classes":
        return _find_classes(manifest)
    targets = defaultdict[str, list[tuple[float, ...]]](list)
    for record in manifest.records:
        targets[record.subject].append(record.targets)
    values = {subject: np.array(own) for subject, own in sorted(targets.items())}  # each [volumes, T]
    if manifest.target == "findings":
        return {
            subject: tuple(bool(mark) for mark in (*(own == 1).any(axis=0), *(own == 0).any(axis=0)))
            for subject, own in values.items()
        }
    return dict(zip(values, quantile_bins([float(own.mean()) for own in values.values()]), strict=True))


def quantile_bins(values: Sequence[float]) -> list[int]:
    """Return the index of the quantile of each number: ten of them, fewer where they would be small.

    >>> quantile_bins([1.0, 5.0, 2.0])
    [0, 0, 0]
    >>> quantile_bins(range(24))[::6]
    [0, 0, 1, 2]
    """
    count = max(1, min(MOST_BINS, len(values) // SUBJECTS_PER_BIN))
    edges = np.quantile(values, np.linspace(0, 1, count + 1)[1:-1])
    return [int(index) for index in np.searchsorted(edges, np.asarray(values), side="left")]


def _find_classes(manifest: Manifest) -> dict[str, int]:
    labels = defaultdict[str, Counter[int]](Counter)
    for record in manifest.records:
        labels[record.subject][record.label] += 1
    return {subject: _most_frequent(counts) for subject, counts in sorted(labels.items())}


def _most_frequent(counts: Counter[int]) -> int:
    highest = max(counts.values())
    return min(label for label, count in counts.items() if count == highest)


def _shuffle_classes(strata: Mapping[str, Any], rng: np.random.Generator) -> list[list[str]]:
    """Return for each class its subjects in random order."""
    by_class = [
        [subject for subject, own in strata.items() if own == label] for label in sorted(set(strata.values()))
    ]
    return [[subjects[index] for index in rng.permutation(len(subjects))] for subjects in by_class]


def _split_by_fraction(
    strata: Strata, fractions: dict[str, float], rng: np.random.Generator
) -> dict[str, str]:
    """Return each subject's split: every class gives each split its fraction, the rest trains."""
    if _are_findings(strata):
        names = ("train", *fractions)
        shares = (1 - sum(fractions.values()), *fractions.values())
        return {name: names[part] for name, part in _divide_findings(strata, shares, rng).items()}
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


def _are_findings(strata: Strata) -> bool:
    return isinstance(next(iter(strata.values()), 0), tuple)


def _divide_findings(strata: Strata, shares: Sequence[float], rng: np.random.Generator) -> dict[str, int]:
    parts = stratify_iteratively(np.array(list(strata.values()), bool), shares, rng)
    return dict(zip(strata, parts.tolist(), strict=True))


def _split_by_fold(strata: Strata, val: float, seed: int, folds: int, fold: int) -> dict[str, str]:
    tested = _select_fold(strata, np.random.default_rng(seed), folds, fold)
    rest = {subject: label for subject, label in strata.items() if subject not in tested}
    fraction_of_rest = val * len(strata) / max(1, len(rest))
    chosen = _split_by_fraction(rest, {"val": fraction_of_rest}, np.random.default_rng((seed, fold)))
    return {subject: chosen.get(subject, "test") for subject in strata}


def _select_fold(strata: Strata, rng: np.random.Generator, folds: int, fold: int) -> set[str]:
    if _are_findings(strata):
        parts = _divide_findings(strata, [1 / folds] * folds, rng)
        return {subject for subject, part in parts.items() if part == fold}
    # Every folds-th subject of one list, class after class, keeps classes and folds even to one subject.
    order = [subject for group in _shuffle_classes(strata, rng) for subject in group]
    return set(order[fold::folds])


def _split_by_table(
    manifest: Manifest, strata: Strata, fractions: dict[str, float], seed: int
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
    trained: Strata = {subject: label for subject, label in strata.items() if chosen[subject] == "train"}
    present = set(chosen.values())
    missing = {split: fraction for split, fraction in fractions.items() if split not in present}
    return chosen | _split_by_fraction(trained, missing, np.random.default_rng(seed))


def stratify_iteratively(
    marks: NDArray[np.bool_], shares: Sequence[float], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the part [S] of each subject, so that every label is in every part as far as there are enough.

    The label with the fewest subjects left is distributed first, each of its subjects to the part that lacks
    most of it; of equal parts to the one that lacks most subjects, then at random. Other than in the source,
    a part with a share above 0 gets at least one subject of each label, at the cost of the largest part.

    Args:
        marks: [S, L] whether a subject has a label; a subject may have none.
        shares: Of the subjects, for each part; they sum to 1.
        rng: Orders the subjects, and decides between equal parts.

    Source:
        Sechidis, Tsoumakas and Vlahavas (2011), On the stratification of multi-label data,
        doi:10.1007/978-3-642-23808-6_10.
    """
    parts = np.full(len(marks), -1, np.int64)
    counts = marks.sum(axis=0).astype(np.float64)
    desired = np.stack([_desired_counts(count, shares) for count in counts], axis=1).reshape(len(shares), -1)
    room = np.asarray(shares) * len(marks)  # [P]
    order = rng.permutation(len(marks))
    while (parts < 0).any():
        left = order[parts[order] < 0]
        per_label = marks[left].sum(axis=0)
        labels = np.flatnonzero(per_label)
        label = int(labels[per_label[labels].argmin()]) if len(labels) else None
        for row in left if label is None else left[marks[left, label]]:
            part = _choose_part(room if label is None else desired[:, label], room, shares, rng)
            parts[row] = part
            desired[part, marks[row]] -= 1
            room[part] -= 1
    return parts


def _desired_counts(count: float, shares: Sequence[float]) -> NDArray[np.float64]:
    """Return the desired number of subjects of a label in each part [P], at least one for a share above 0.

    >>> _desired_counts(4, (0.8, 0.1, 0.1)).tolist()
    [2.0, 1.0, 1.0]
    """
    fractions = np.asarray(shares, np.float64)
    desired = np.where(fractions > 0, np.maximum(count * fractions, 1.0), 0.0)
    largest = int(fractions.argmax())
    desired[largest] = max(1.0, count - (desired.sum() - desired[largest]))
    return desired


def _choose_part(
    desired: NDArray[np.float64], room: NDArray[np.float64], shares: Sequence[float], rng: np.random.Generator
) -> int:
    """Return the part that lacks most of a label, then most subjects, then any; none with the share 0."""
    open_parts = np.flatnonzero(np.asarray(shares) > 0)
    most = open_parts[desired[open_parts] >= desired[open_parts].max() - 1e-9]
    most = most[room[most] >= room[most].max() - 1e-9]
    return int(rng.choice(most))


def read_sites(manifest: Manifest, column: str, *, setting: str) -> tuple[str, ...]:
    """Return the site of each record.

    Args:
        manifest: The records, of a table.
        column: Of the sites.
        setting: That names the column, for the message.

    Raises:
        ManifestError: There is no such column, a cell is empty, or a subject is at two sites.
    """
    if manifest.source.is_dir():
        raise ManifestError(f"{setting}={column}: {manifest.source} is a folder per class, without columns.")
    table = read_table(manifest.source)
    if column not in table.columns:
        raise ManifestError(
            f"{setting}={column}: expected a column of {manifest.source}; it has {list_some(table.columns)}."
        )
    cell_of = dict(zip(table.lines, (row[column].strip() for row in table.rows), strict=True))
    sites = tuple(cell_of[record.row] for record in manifest.records)
    empty = [
        str(record.row) for record, site in zip(manifest.records, sites, strict=True) if is_missing(site)
    ]
    if empty:
        raise ManifestError(
            f"{setting}={column}: {len(empty)} used rows of {manifest.source} have no site: "
            f"{list_some(empty)}. Fill the cells, for example with a site of their own."
        )
    _refuse_travellers(manifest, sites, f"{setting}={column}")
    return sites


def _refuse_travellers(manifest: Manifest, sites: Sequence[str], setting: str) -> None:
    found = defaultdict[str, set[str]](set)
    for record, site in zip(manifest.records, sites, strict=True):
        found[record.subject].add(site)
    several = [f"{name} ({', '.join(sorted(own))})" for name, own in found.items() if len(own) > 1]
    if several:
        raise ManifestError(
            f"{setting}: {len(several)} subjects are at two sites, so these cannot be kept apart: "
            f"{list_some(several)}. Give each subject one site, or leave the others out."
        )


def group_by_site(manifest: Manifest, sites: Sequence[str]) -> Manifest:
    """Return the records with their site in place of their subject, so that splits keep sites together."""
    pairs = zip(manifest.records, sites, strict=True)
    return replace(manifest, records=tuple(replace(record, subject=site) for record, site in pairs))


def leave_site_out(
    manifest: Manifest, sites: Sequence[str], *, fold: int, val: float, seed: int, by_site: bool = False
) -> tuple[str, ...]:
    """Return splits with one site as the test, and validation subjects from the other sites.

    Args:
        manifest: The records, without splits of their own.
        sites: One per record.
        fold: Index of the test site, in alphabetical order.
        val: Fraction of all subjects for validation.
        seed: Of the draw of validation subjects.
        by_site: Whether validation consists of whole sites, too.

    Raises:
        ManifestError: There is no such fold, or a split that no model could be trained or scored on.
    """
    names = sorted(set(sites))
    if len(names) < 2 or fold >= len(names):
        listed = ", ".join(f"{index} {name}" for index, name in enumerate(names))
        raise ManifestError(f"splits.fold={fold}: expected the number of a site among {listed}.")
    rest = [index for index, site in enumerate(sites) if site != names[fold]]
    own = replace(manifest, records=tuple(manifest.records[index] for index in rest))
    subjects = [len({record.subject for record in part.records}) for part in (manifest, own)]
    fraction = min(val * subjects[0] / subjects[1], 0.9)
    part = group_by_site(own, [sites[index] for index in rest]) if by_site else own
    inner = assign_splits(part, val=fraction, test=0.0, seed=seed)
    chosen: Mapping[int, str] = dict(zip(rest, inner, strict=True))
    splits = tuple(chosen.get(index, "test") for index in range(len(sites)))
    CHECKS[manifest.target][1](manifest, splits)
    return splits
