"""The manifest of a data set: which image files belong to which subject, with which label.

A manifest is read from a table (CSV, TSV, .xlsx, a BIDS `participants.tsv`) or from a folder per class (see
`rows`). No row is dropped silently: what cannot be used is either an error or counted in `Manifest.left_out`.

A subject may have several volumes, and its labels may differ between rows (two time points, two eyes): each
volume keeps its own label, and all volumes of a subject stay in one split.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.paths import IMAGE_SUFFIXES, find_real_path, is_absent, is_file
from voxlift.data_pipelines.tables.reader import Table, read_table
from voxlift.data_pipelines.tables.rows import (
    SPLITS,
    Row,
    TableOptions,
    find_split,
    read_rows,
)
from voxlift.data_pipelines.tables.subjects import unify_subjects
from voxlift.data_pipelines.tables.targets import interpret_labels
from voxlift.data_pipelines.tables.values import is_missing

__all__ = [
    "Manifest",
    "ManifestError",
    "Record",
    "TableOptions",
    "join_images",
    "load_manifest",
    "load_rows_unchecked",
    "split_images",
]

Label = tuple[int, tuple[float, ...]]  # class index and targets of a record; nan is always `math.nan`

DEFAULT_OPTIONS = TableOptions()
IMAGE_SEPARATOR = "|"

# Letters only, without blanks and punctuation: `Subject ID`, `subject_id` and `SubjectID` are one name.
# `case` is left out, since it often does not name the subject.
_SUBJECT_COLUMNS = frozenset(
    f"{who}{mark}"
    for who in ("participant", "subject", "patient", "sub", "case", "")
    for mark in ("id", "nr", "no", "number", "")
) - {"", "nr", "no", "number", "case"} | {"mrn", "ptid", "rid"}


@dataclass(frozen=True)
class Record:
    """One row: the volume (one file per channel) of a subject, and its label or targets.

    Args:
        subject: The subject's name; a subject is never in two splits.
        images: Absolute paths, one per channel; a directory contains a DICOM series.
        label: Class index; 0 where the target is findings or a number.
        split: "train", "val", "test", or None where the table has none.
        row: Line in the table, or running number in a folder per class, from 1.
        targets: 1, 0 or nan (unknown) for each finding; or the number; empty for classes.
    """

    subject: str
    images: tuple[Path, ...]
    label: int
    split: str | None
    row: int
    targets: tuple[float, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """All usable rows of a data set.

    Args:
        records: In the table's order.
        classes: Class names; a record's label is the index. Where the target is findings or a number: their
            names; a record's targets have their order.
        left_out: For each reason, the number of rows that are not used.
        source: The table or folder.
        notes: How it was read, a sentence by kind; those in `subjects.SUBJECT_NOTES` are warnings.
        target: `classes`, `findings` or `number`.
    """

    records: tuple[Record, ...]
    classes: tuple[str, ...]
    left_out: Mapping[str, int]
    source: Path
    notes: Mapping[str, str] = field(default_factory=dict)
    target: str = "classes"


def join_images(images: Iterable[Path]) -> str:
    """Return a record's image files as one table cell, which identifies its volume in scores and rows.

    A separator inside a path is written twice. No path begins with one, so the cell can be split again.

    >>> join_images([Path("t1.nii"), Path("flair|2.nii")])
    't1.nii|flair||2.nii'
    """
    return IMAGE_SEPARATOR.join(str(image).replace(IMAGE_SEPARATOR, IMAGE_SEPARATOR * 2) for image in images)


def split_images(cell: str) -> tuple[Path, ...]:
    """Return the image files of a cell; the inverse of `join_images`."""
    parts = cell.replace(IMAGE_SEPARATOR * 2, "\0").split(IMAGE_SEPARATOR)  # no path contains NUL
    return tuple(Path(part.replace("\0", IMAGE_SEPARATOR)) for part in parts)


def load_manifest(table: str | Path, options: TableOptions = DEFAULT_OPTIONS) -> Manifest:
    """Return the usable rows of a table, or of a folder per class.

    Args:
        table: CSV, TSV or .xlsx file, or a folder `CLASS/file`, `CLASS/subject/file` or `train/CLASS/file`;
            `~` is expanded.
        options: What its columns mean.

    Raises:
        ManifestError: Rows cannot be used; the message lists them together, by row.
    """
    source = Path(table).expanduser().absolute()
    if options.subject_column is None and not source.is_dir():
        _refuse_unused_subjects(read_table(source), source)
    every, notes = read_rows(source, options)
    rows, left_out = _drop_incomplete(every)
    found = interpret_labels(rows, source, options)
    kept = [
        (row, (label, targets))
        for row, label, targets in zip(rows, found.labels, found.targets, strict=True)
        if isinstance(label, int)
    ]
    left_out += Counter(label for label in found.labels if isinstance(label, str))
    _check_cells(kept, source)
    unique = _drop_duplicates(kept, source)
    left_out += Counter({"image listed twice": len(kept) - len(unique)})
    if not options.keep_absent:
        _check_files((row for row, _ in unique), source)
    records = tuple(_to_record(row, label) for row, label in unique)
    return Manifest(records, found.names, dict(left_out), source, notes, options.target)


def load_rows_unchecked(table: str | Path, options: TableOptions) -> Manifest:
    """Return every row that names an image and has a label, for an audit, never for training.

    Unlike `load_manifest`, it keeps rows whose image does not exist, rows that contradict each other, and
    rows without a subject or with an unknown split, so that an audit can report all these problems together.

    Args:
        table: As in `load_manifest`.
        options: What its columns mean.

    Raises:
        ManifestError: The table itself cannot be read, lacks a column, or has fewer than two classes.
    """
    source = Path(table).expanduser().absolute()
    rows, notes = read_rows(source, options)
    found = interpret_labels(rows, source, options)
    pairs = list(zip(rows, found.labels, found.targets, strict=True))
    left_out = Counter(label for label in found.labels if isinstance(label, str))
    left_out["image missing"] = sum(row.images is None and isinstance(label, int) for row, label, _ in pairs)
    records = [
        _to_record(row, (label, targets))
        for row, label, targets in pairs
        if row.images and isinstance(label, int)
    ]
    unique = {(one.images, one.subject, one.label, one.targets, one.split): one for one in reversed(records)}
    left_out["image listed twice"] = len(records) - len(unique)
    kept = tuple(reversed(unique.values()))
    return Manifest(kept, found.names, dict(+left_out), source, notes, options.target)


def _to_record(row: Row, label: Label) -> Record:
    split = find_split(row.split) if row.split else None
    index, targets = label
    return Record(row.subject or f"row {row.line}", row.images or (), index, split, row.line, targets)


def _refuse_unused_subjects(table: Table, source: Path) -> None:
    """Raise an error if a table repeats its subjects, but no subject column keeps them in one split."""
    for column in filter(_is_subject_column, table.columns):
        names = unify_subjects([cells[column] for cells in table.rows])
        counts = Counter(name for name in names if not is_missing(name))
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            raise ManifestError(
                f"{source}: the column {column!r} repeats {list_some(repeated)}, but no subject column is "
                f"set, so one subject could be in two splits. Set 'data.subject_column={column}', or to the "
                "image column if every row really is a subject of its own."
            )


def _is_subject_column(column: str) -> bool:
    """Return whether a column's name indicates that it names subjects.

    >>> [_is_subject_column(name) for name in ("Subject ID", "patient_no", "ID", "Site", "No")]
    [True, True, True, False, False]
    """
    return "".join(filter(str.isalpha, column.casefold())) in _SUBJECT_COLUMNS


def _drop_incomplete(rows: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
    """Return the rows that name an image and (where there is a split column) a split; count the others."""
    left_out = Counter[str]()
    kept = []
    for row in rows:
        if row.images is None:
            left_out["image missing"] += 1
        elif row.split is not None and is_missing(row.split):
            left_out["split missing"] += 1
        else:
            kept.append(row)
    return kept, left_out


def _check_cells(kept: Iterable[tuple[Row, Label]], source: Path) -> None:
    unknown = [f"row {row.line}: {row.split!r}" for row, _ in kept if row.split and not find_split(row.split)]
    nameless = [f"row {row.line}" for row, _ in kept if not row.subject]
    if unknown:
        raise ManifestError(
            f"{source}: expected a split among {', '.join(SPLITS)}, received {list_some(unknown)}."
        )
    if nameless:
        raise ManifestError(
            f"{source} names no subject in {list_some(nameless)}. Fill in the subject column."
        )


def _drop_duplicates(kept: Sequence[tuple[Row, Label]], source: Path) -> list[tuple[Row, Label]]:
    """Return each image once.

    Raises:
        ManifestError: Rows of one image contradict each other.
    """
    by_images: dict[tuple[Path, ...], list[tuple[Row, Label]]] = defaultdict(list)
    for row, label in kept:
        by_images[tuple(map(find_real_path, row.images or ()))].append((row, label))
    problems = [problem for images, same in by_images.items() for problem in _contradictions(images, same)]
    if problems:
        raise ManifestError(f"{source} contradicts itself: {list_some(problems)}. Keep one row per image.")
    return [same[0] for same in by_images.values()]


def _contradictions(images: tuple[Path, ...], same: Sequence[tuple[Row, Label]]) -> list[str]:
    rows = [row for row, _ in same]
    values = {
        "label": {", ".join(row.findings) or row.label for row in rows}
        if len({label for _, label in same}) > 1
        else set(),
        "subject": {row.subject for row in rows},
        "split": {str(row.split) for row in rows},
    }
    lines = " and ".join(str(row.line) for row in rows[:2])
    return [
        f"rows {lines} give {images[0]} two {name}s ({list_some(sorted(found))})"
        for name, found in values.items()
        if len(found) > 1
    ]


def _check_files(rows: Iterable[Row], source: Path) -> None:
    missing = [(row.line, path) for row in rows for path in row.images or () if is_absent(path)]
    listed = [f"row {line}: {path}{_suffix_hint(path)}" for line, path in missing]
    if listed:
        images = "images that do" if len(listed) > 1 else "image that does"
        raise ManifestError(
            f"{source} names {len(listed)} {images} not exist: {list_some(listed)}. "
            "Relative paths start from data.root, by default the folder of the table. "
            "To leave these rows out, set data.on_bad_file=skip."
        )


def _suffix_hint(path: Path) -> str:
    """Return a hint at a file of that name with a suffix, where a table leaves the suffix out."""
    found = [path.name + suffix for suffix in IMAGE_SUFFIXES if is_file(path.parent / f"{path.name}{suffix}")]
    return f" (there is {found[0]})" if found else ""
