"""What an audit has to say: one value per finding, and the rules that make findings from facts."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from voxlift.data_pipelines.audit.confounding import exact_association, separation
from voxlift.data_pipelines.audit.facts import Facts
from voxlift.data_pipelines.audit.suggest import are_masks
from voxlift.data_pipelines.tables.manifest import Manifest
from voxlift.data_pipelines.tables.reader import list_some
from voxlift.data_pipelines.volume import Array

FORMS_OFF_MM = 0.5
OUTLIER_FACTOR = 1.5
CONFOUNDED_AREA = 0.8
SPOILING_AREA = 0.95
CONFOUNDED_SHARE = 0.5
CHANCE = 0.01


@dataclass(frozen=True)
class Finding:
    """One thing that the audit found.

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
    """One image of the manifest: its facts and whose it is."""

    facts: Facts
    subject: str
    label: int
    split: str | None


def _error(kind: str, message: str, where: Sequence[object]) -> Finding:
    return Finding(kind, "error", message, tuple(map(str, where)), spoils=True)


def _warning(kind: str, message: str, where: Sequence[object]) -> Finding:
    return Finding(kind, "warning", message, tuple(map(str, where)))


def file_findings(cases: Sequence[Case], *, skips_bad: bool = False) -> Iterator[Finding]:
    """Yield what is wrong with single files.

    Args:
        cases: One per image.
        skips_bad: Whether training leaves files out that cannot be read, which then spoil nothing.
    """
    among_masks = are_masks([case.facts for case in cases])
    for facts in (case.facts for case in cases):
        if facts.error:
            kind = "unreadable" if facts.path.exists() else "absent"
            yield (_warning if skips_bad else _error)(kind, facts.error, [facts.path])
        else:
            yield from _voxel_findings(facts, among_masks=among_masks)
            yield from _header_findings(facts)


def _voxel_findings(facts: Facts, *, among_masks: bool) -> Iterator[Finding]:
    voxels = int(np.prod(facts.shape)) * facts.channels
    if facts.nonfinite == voxels:
        yield _error("no_finite_voxel", "every voxel is NaN or infinite", [facts.path])
        return
    if facts.nonfinite:
        share = f"{facts.nonfinite:,} of {voxels:,} voxels are NaN or infinite"
        yield _warning("nonfinite", f"{share}; they get the padding value", [facts.path])
    if facts.minimum == facts.maximum == 0 and among_masks:
        yield _warning("empty_mask", "the mask is empty", [facts.path])
    elif facts.minimum == facts.maximum:
        yield _error("constant", f"every voxel is {facts.minimum:g}", [facts.path])


def _header_findings(facts: Facts) -> Iterator[Finding]:
    if facts.forms_off_mm is not None and facts.forms_off_mm > FORMS_OFF_MM:
        off = f"sform and qform place a corner {facts.forms_off_mm:.3g} mm apart"
        yield _warning("forms_conflict", f"{off}; choose with preprocess.prefer=sform or qform", [facts.path])
    for note in facts.notes:
        yield _warning("header", note, [facts.path])
    if facts.is_sheared:
        yield _warning("sheared", "the stored axes are not at right angles", [facts.path])


def mixture_findings(cases: Sequence[Case]) -> Iterator[Finding]:
    """Yield where the files of a data set differ from one another."""
    known = [case.facts for case in cases if not case.facts.error]
    for kind, spoils in (("axcodes", False), ("dtype", False), ("channels", True)):
        counts = Counter(getattr(facts, kind) for facts in known)
        if len(counts) < 2:
            continue
        usual = counts.most_common(1)[0][0]
        odd = tuple(str(facts.path) for facts in known if getattr(facts, kind) != usual)
        shown = ", ".join(f"{value}: {count}" for value, count in counts.most_common(10))
        severity = "error" if spoils else "note"
        yield Finding(f"mixed_{kind}", severity, f"files differ in {kind} ({shown})", odd, spoils)
    yield from _outliers(known, "spacing", "mm")
    yield from _outliers(known, "shape", "voxels")


def _outliers(known: Sequence[Facts], name: str, unit: str) -> Iterator[Finding]:
    """Yield the files whose spacing or shape is off the data set's median by half or more, on any axis."""
    if len(known) < 3:
        return
    values = np.array([getattr(facts, name) for facts in known], float)
    middle = np.median(values, axis=0)
    off = (np.maximum(values / middle, middle / values) >= OUTLIER_FACTOR).any(axis=1)
    if off.any():
        usual = " x ".join(f"{value:.4g}" for value in middle)
        odd = [facts.path for facts, is_off in zip(known, off, strict=True) if is_off]
        yield _warning(
            f"{name}_outlier",
            f"{off.sum()} of {len(known)} files are far from {usual} {unit} (D x H x W)",
            odd,
        )


def identity_findings(cases: Sequence[Case], classes: Sequence[str]) -> Iterator[Finding]:
    """Yield leaks and contradictions: subjects in two splits, the same file or voxels under two names.

    Args:
        cases: All images of the data set.
        classes: Class names; a case's label is the index.
    """
    for subject, same in _grouped(cases, lambda case: case.subject).items():
        used = {case.split for case in same if case.split}
        if len(used) > 1:
            yield _error("subject_in_two_splits", f"subject {subject} is in {_listed(used)}", [subject])
    for path, same in _grouped(cases, lambda case: str(case.facts.path)).items():
        labels = {case.label for case in same}
        if len(labels) > 1:
            names = _listed(classes[label] for label in labels)
            yield _error("two_labels", f"the file is listed under {names}", [path])
    # Constant images are a finding of their own, and all alike.
    telling = [case for case in cases if case.facts.minimum != case.facts.maximum]
    for same in _grouped(telling, lambda case: case.facts.voxel_hash).values():
        yield from _same_voxels(same, classes)


def _grouped(cases: Sequence[Case], key: Callable[[Case], str]) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[key(case)].append(case)
    return groups


def _same_voxels(same: Sequence[Case], classes: Sequence[str]) -> Iterator[Finding]:
    files = sorted({str(case.facts.path) for case in same})
    if len(files) < 2:
        return
    subjects, labels = {case.subject for case in same}, {case.label for case in same}
    splits = {case.split for case in same if case.split}
    message = f"{len(files)} files hold the same voxels"
    if len(labels) > 1:
        message += f", under the labels {_listed(classes[label] for label in labels)}"
    if len(splits) > 1:
        message += f", in the splits {_listed(splits)}"
    if len(subjects) > 1:
        message += f", under the subjects {_listed(subjects)}"
    bad = len(subjects) > 1 or len(labels) > 1 or len(splits) > 1
    yield (_error if bad else _warning)("same_voxels", message, files)


def confounding_findings(cases: Sequence[Case], classes: Sequence[str]) -> Iterator[Finding]:
    """Yield the classes that can be told from spacing, shape, type or stored axes, without any voxel.

    Args:
        cases: All images of the data set.
        classes: Class names; a case's label is the index.
    """
    known = [case for case in cases if not case.facts.error]
    labels = np.array([case.label for case in known])
    told_apart = range(len(classes)) if len(classes) > 2 else (1,)  # of two, either tells of both
    tests = list(product(told_apart, ("spacing", "shape"), range(3)))
    for label, name, axis in tests:
        # Headers store float32: equal spacings must be equal here too.
        values = np.round([getattr(case.facts, name)[axis] for case in known], 4).astype(float)
        area, chance = separation(values, labels, label)
        if area >= CONFOUNDED_AREA and chance * len(tests) < CHANCE:
            told = f"{name} along {('depth', 'height', 'width')[axis]} alone (AUC {area:.2f}, p {chance:.2g})"
            yield _confounded(f"class {classes[label]} can be told from {told}", spoils=area >= SPOILING_AREA)
    for label, name in product(told_apart, ("axcodes", "dtype", "kind")):
        yield from _associated(known, labels, label, name, classes)


def _associated(
    known: Sequence[Case], labels: Array, label: int, name: str, classes: Sequence[str]
) -> Iterator[Finding]:
    values = [getattr(case.facts, name) for case in known]
    for value in sorted(set(values)):
        has = np.array([other == value for other in values])
        chance = exact_association(has, labels, label)
        if chance * len(classes) * len(set(values)) >= CHANCE:
            continue
        inside, outside = has[labels == label].mean(), has[labels != label].mean()
        if abs(inside - outside) >= CONFOUNDED_SHARE:
            told = f"{name} {value} ({inside:.0%} of it against {outside:.0%}, p {chance:.2g})"
            yield _confounded(f"class {classes[label]} can be told from {told}", spoils=False)


def _confounded(message: str, *, spoils: bool) -> Finding:
    return Finding("confounded", "error" if spoils else "warning", message, (), spoils)


def all_findings(
    cases: Sequence[Case], manifest: Manifest, *, skips_bad: bool = False
) -> tuple[Finding, ...]:
    """Return every finding about files and what they share, those that spoil training first.

    Args:
        cases: All images of the data set.
        manifest: Whose classes are named.
        skips_bad: As in `file_findings`.
    """
    found = [
        *file_findings(cases, skips_bad=skips_bad),
        *mixture_findings(cases),
        *identity_findings(cases, manifest.classes),
        *confounding_findings(cases, manifest.classes),
    ]
    return worst_first(found)


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings in order: those that spoil training, then by severity."""
    rank = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(findings, key=lambda finding: (not finding.spoils, rank[finding.severity])))


def _listed(names: Iterable[object]) -> str:
    return list_some(sorted({str(name) for name in names}))
