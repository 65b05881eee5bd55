"""Find what is wrong with files, with their consistency, and with channels and classes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from voxlift.data_pipelines.audit.facts import Facts, are_masks
from voxlift.data_pipelines.errors import list_some
from voxlift.data_pipelines.files import is_absent
from voxlift.data_pipelines.geometry import corner_distance_mm, is_same_grid
from voxlift.data_pipelines.tables.manifest import Manifest
from voxlift.data_pipelines.tables.reader import is_number

MAX_FORMS_OFF_MM = 0.5
OUTLIER_FACTOR = 1.5
MIN_FILES_FOR_OUTLIERS = 3
MIN_SUBJECTS_PER_CLASS = 3  # one each for training, validation and test


@dataclass(frozen=True)
class Finding:
    """One problem that the audit found.

    Attributes:
        kind: A short name, such as "unreadable" or "same_voxels"; stable, for scripts.
        severity: "error", "warning" or "note".
        message: A sentence with the numbers in it.
        where: The files or subjects it is about, all of them.
        spoils: Whether training on the data as it is would fail or mislead.
    """

    kind: str
    severity: str
    message: str
    where: tuple[str, ...] = ()
    spoils: bool = False


@dataclass(frozen=True, eq=False)
class Case:
    """One image of the manifest: its facts, subject, label and split, and the name of its mask or centre."""

    facts: Facts
    subject: str
    label: int
    split: str | None
    region: str = ""


def _error(kind: str, message: str, where: Sequence[object]) -> Finding:
    return Finding(kind, "error", message, tuple(map(str, where)), spoils=True)


def _warning(kind: str, message: str, where: Sequence[object]) -> Finding:
    return Finding(kind, "warning", message, tuple(map(str, where)))


def check_files(cases: Sequence[Case], *, skips_bad: bool = False) -> Iterator[Finding]:
    """Yield the problems of single files.

    Args:
        cases: One per image.
        skips_bad: Whether training leaves out files that cannot be read, which then spoil nothing.
    """
    among_masks = are_masks([case.facts for case in cases])
    for facts in (case.facts for case in cases):
        if facts.error:
            kind = "absent" if is_absent(facts.path) else "unreadable"
            yield (_warning if skips_bad else _error)(kind, facts.error, [facts.path])
        else:
            yield from _check_voxels(facts, among_masks=among_masks)
            yield from _check_header(facts)


def _check_voxels(facts: Facts, *, among_masks: bool) -> Iterator[Finding]:
    voxels = int(np.prod(facts.shape)) * facts.channels
    if facts.nonfinite == voxels:
        yield _error("no_finite_voxel", "every voxel is NaN or infinite", [facts.path])
        return
    if facts.nonfinite:
        count = f"{facts.nonfinite:,} of {voxels:,} voxels are NaN or infinite"
        yield _warning("nonfinite", f"{count}; they get the padding value", [facts.path])
    if facts.minimum == facts.maximum == 0 and among_masks:
        yield _warning("empty_mask", "the mask is empty", [facts.path])
    elif facts.minimum == facts.maximum:
        yield _error("constant", f"every voxel is {facts.minimum:g}", [facts.path])
    if 1 in facts.shape:
        shape = "x".join(map(str, facts.shape))
        yield _warning(
            "single_slice", f"the image is a single slice, {shape} voxels (D x H x W)", [facts.path]
        )


def _check_header(facts: Facts) -> Iterator[Finding]:
    if facts.forms_off_mm is not None and facts.forms_off_mm > MAX_FORMS_OFF_MM:
        distance = f"sform and qform place a corner {facts.forms_off_mm:.3g} mm apart"
        yield _warning(
            "forms_conflict", f"{distance}; choose with preprocess.prefer=sform or qform", [facts.path]
        )
    for note in facts.notes:
        yield _warning("header", note, [facts.path])
    if facts.is_sheared:
        yield _warning("sheared", "the stored axes are not at right angles", [facts.path])


def check_consistency(cases: Sequence[Case]) -> Iterator[Finding]:
    """Yield the properties in which the files of a data set differ from one another."""
    known = [case.facts for case in cases if not case.facts.error]
    for kind, spoils in (("axcodes", False), ("dtype", False), ("channels", True)):
        counts = Counter(getattr(facts, kind) for facts in known)
        if len(counts) < 2:
            continue
        most_common = counts.most_common(1)[0][0]
        others = tuple(str(facts.path) for facts in known if getattr(facts, kind) != most_common)
        listed = ", ".join(f"{value}: {count}" for value, count in counts.most_common(10))
        severity = "error" if spoils else "note"
        yield Finding(f"mixed_{kind}", severity, f"files differ in {kind} ({listed})", others, spoils)
    yield from _check_outliers(known, "spacing", "mm")
    yield from _check_outliers(known, "shape", "voxels")


def _check_outliers(known: Sequence[Facts], name: str, unit: str) -> Iterator[Finding]:
    """Yield the files whose spacing or shape differs from the median by `OUTLIER_FACTOR` on any axis."""
    if len(known) < MIN_FILES_FOR_OUTLIERS:
        return
    values = np.array([getattr(facts, name) for facts in known], float)
    median = np.median(values, axis=0)
    is_outlier = (np.maximum(values / median, median / values) >= OUTLIER_FACTOR).any(axis=1)
    if is_outlier.any():
        usual, first = (
            " x ".join(f"{value:.4g}" for value in sides) for sides in (median, values[is_outlier][0])
        )
        count = f"{is_outlier.sum()} of {len(known)} files"
        yield _warning(
            f"{name}_outlier",
            f"{count} are far from {usual} {unit} (D x H x W), the first with {first}",
            [facts.path for facts, is_off in zip(known, is_outlier, strict=True) if is_off],
        )


def check_duplicates(cases: Sequence[Case], classes: Sequence[str]) -> Iterator[Finding]:
    """Yield leaks and contradictions: subjects in two splits, the same file or voxels under two names.

    Args:
        cases: All images of the data set.
        classes: Class names; a case's label is the index.
    """
    for subject, same in _group(cases, [case.subject for case in cases]).items():
        splits = {case.split for case in same if case.split}
        if len(splits) > 1:
            yield _error("subject_in_two_splits", f"subject {subject} is in {_list(splits)}", [subject])
    listed = _group(cases, [f"{case.facts.path}@{case.region}" for case in cases])
    for path, same in ((str(same[0].facts.path), same) for same in listed.values()):
        labels = {case.label for case in same}
        if len(labels) > 1:
            names = _list(classes[label] for label in labels)
            yield _error("two_labels", f"the file is listed under {names}", [path])
    # Constant images have a finding of their own, and all have the same voxels.
    varied = [case for case in cases if case.facts.minimum != case.facts.maximum]
    for same in _group(varied, [case.facts.voxel_hash for case in varied]).values():
        yield from _check_copies(same, classes)


def _group(cases: Sequence[Case], keys: Sequence[str]) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = defaultdict(list)
    for case, key in zip(cases, keys, strict=True):
        groups[key].append(case)
    return groups


def _check_copies(same: Sequence[Case], classes: Sequence[str]) -> Iterator[Finding]:
    files = sorted({str(case.facts.path) for case in same})
    if len(files) < 2:
        return
    subjects, labels = {case.subject for case in same}, {case.label for case in same}
    splits = {case.split for case in same if case.split}
    message = f"{len(files)} files have the same voxels"
    if len(labels) > 1:
        message += f", under the labels {_list(classes[label] for label in labels)}"
    if len(splits) > 1:
        message += f", in the splits {_list(splits)}"
    if len(subjects) > 1:
        message += f", under the subjects {_list(subjects)}"
    spoils = len(subjects) > 1 or len(labels) > 1 or len(splits) > 1
    yield (_error if spoils else _warning)("same_voxels", message, files)


def _list(names: Iterable[object]) -> str:
    return list_some(sorted({str(name) for name in names}))


def check_channels(records: Sequence[Sequence[Facts]]) -> Iterator[Finding]:
    """Yield one finding for all records whose channels are on different grids, which training refuses.

    Args:
        records: The facts of each record's files, one per channel; those that cannot be read do not count.
    """
    readable = [[facts for facts in files if not facts.error] for files in records]
    differing = [
        (first, other)
        for first, *others in filter(None, readable)
        for other in others
        if not is_same_grid(other.stored_shape, other.affine, first.stored_shape, first.affine)
    ]
    if not differing:
        return
    distance = max(corner_distance_mm(one.affine, other.affine, one.stored_shape) for one, other in differing)
    count = len({str(first.path) for first, _ in differing})
    yield _error(
        "channels_off_grid",
        f"the channels of {count} of {len(records)} records do not share a grid (corners up to"
        f" {distance:.3g} mm apart)",
        [other.path for _, other in differing],
    )


def check_classes(manifest: Manifest, splits: Sequence[str | None]) -> Iterator[Finding]:
    """Yield the classes that cannot have a subject in every split, and those with similar names.

    Args:
        manifest: The records.
        splits: One per record; None where none is assigned yet.
    """
    yield from _check_class_names(manifest.classes)
    splits_of = defaultdict[int, dict[str, str | None]](dict)
    for record, split in zip(manifest.records, splits, strict=True):
        splits_of[record.label][record.subject] = split
    if not any(splits):
        yield from _check_class_sizes(manifest.classes, splits_of)
        return
    for label, name in enumerate(manifest.classes):
        if not {"train", None} & set(splits_of[label].values()):
            yield _error("untrained_class", f"no training volume is of class {name}", [])


def _check_class_names(classes: Sequence[str]) -> Iterator[Finding]:
    """Yield the classes whose names differ only in capitals, spaces or punctuation, or are equal numbers."""
    groups = defaultdict[str, list[str]](list)
    for name in classes:
        plain = re.sub(r"[\W_]+", "", name.casefold()) or name
        groups[str(float(name)) if is_number(name) else plain].append(name)
    for same in groups.values():
        if len(same) > 1:
            listed = " and ".join(map(repr, same))
            yield _warning("similar_classes", f"the classes {listed} differ only in spelling", [])


def _check_class_sizes(classes: Sequence[str], subjects: Mapping[int, Collection[str]]) -> Iterator[Finding]:
    small = [label for label in range(len(classes)) if len(subjects[label]) < MIN_SUBJECTS_PER_CLASS]
    if len(small) > 1 and len(classes) > MIN_SUBJECTS_PER_CLASS and all(map(is_number, classes)):
        message = (
            f"the label is a number of {len(classes)} values; {len(small)} of them are too rare to split"
        )
        yield _error("numeric_label", message, [])
        return
    for label in small:
        names = tuple(subjects[label])
        count = f"{len(names)} subject{'s' * (len(names) != 1)}"
        message = f"class {classes[label]} has {count}; training with validation and test needs three"
        is_too_small = len(names) < MIN_SUBJECTS_PER_CLASS - 1
        yield (_error if is_too_small else _warning)("small_class", message, names)
