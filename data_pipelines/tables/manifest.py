"""The manifest of a data set: which image files belong to which subject, with which label.

A manifest is read from a table (CSV, TSV, .xlsx, a BIDS `participants.tsv`) or from a folder per class (see
`rows`). No row is dropped silently: what cannot be used is either an error or counted in `Manifest.left_out`.

A subject may have several volumes, and its labels may differ between rows (two time points, two eyes): each
volume keeps its own label, and all volumes of a subject stay in one split.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.tables.reader import Table, is_missing, read_table
from voxlift.data_pipelines.tables.regions import Region, name_mask
from voxlift.data_pipelines.tables.row_checks import (
    Label,
    check_cells,
    check_files,
    drop_duplicates,
    drop_incomplete,
)
from voxlift.data_pipelines.tables.rows import (
    Row,
    TableOptions,
    find_split,
    read_rows,
)
from voxlift.data_pipelines.tables.subjects import unify_subjects
from voxlift.data_pipelines.tables.targets import interpret_labels

__all__ = [
    "Manifest",
    "ManifestError",
    "Record",
    "TableOptions",
    "join_images",
    "load_manifest",
    "load_rows_unchecked",
    "name_item",
    "split_images",
    "split_item",
]

DEFAULT_OPTIONS = TableOptions()
IMAGE_SEPARATOR = "|"
_REGION_NAME = re.compile(r"@(-?[0-9.e+-]+(,-?[0-9.e+-]+){2}|/.*)$")  # a centre, or the path of a mask

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
        region: Its mask or centre in the images; None where the data set has none.
    """

    subject: str
    images: tuple[Path, ...]
    label: int
    split: str | None
    row: int
    targets: tuple[float, ...] = ()
    region: Region | None = None

    @property
    def item(self) -> str:
        """The text that identifies the record in scores: its images, and its region's name if it has one."""
        return name_item(self.images, self.region)


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


def name_item(images: Iterable[Path], region: Region | None) -> str:
    """Return the images of a volume as text, with what distinguishes its region from others there.

    >>> name_item([Path("t1.nii")], Region(centre=(1.0, 2.0, 3.0), name="1,2,3"))
    't1.nii@1,2,3'
    """
    cell = join_images(images)
    return f"{cell}@{region.name}" if region is not None and region.name else cell


def split_images(cell: str) -> tuple[Path, ...]:
    """Return the image files of a cell; the inverse of `join_images`."""
    parts = cell.replace(IMAGE_SEPARATOR * 2, "\0").split(IMAGE_SEPARATOR)  # no path contains NUL
    return tuple(Path(part.replace("\0", IMAGE_SEPARATOR)) for part in parts)


def split_item(item: str) -> tuple[Path, ...]:
    """Return the image files of an item, see `Record.item`, without the name of its region.

    >>> [str(path) for path in split_item("t1.nii|flair.nii@-1.5,2,3")]
    ['t1.nii', 'flair.nii']
    """
    *first, last = split_images(item)
    return (*first, Path(_REGION_NAME.sub("", str(last))))


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
    rows, left_out = drop_incomplete(every)
    found = interpret_labels(rows, source, options)
    kept = [
        (row, (label, targets))
        for row, label, targets in zip(rows, found.labels, found.targets, strict=True)
        if isinstance(label, int)
    ]
    left_out += Counter(label for label in found.labels if isinstance(label, str))
    check_cells(kept, source)
    unique = drop_duplicates(kept, source)
    left_out += Counter({"image listed twice": len(kept) - len(unique)})
    if not options.keep_absent:
        check_files((row for row, _ in unique), source)
    records = _name_masks(tuple(_to_record(row, label) for row, label in unique))
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
    left_out += Counter(row.region_problem for row, label, _ in pairs if isinstance(label, int))
    del left_out[""]
    records = [
        _to_record(row, (label, targets))
        for row, label, targets in pairs
        if row.images and not row.region_problem and isinstance(label, int)
    ]
    unique = {
        (one.images, one.region, one.subject, one.label, one.targets, one.split): one
        for one in reversed(records)
    }
    left_out["image listed twice"] = len(records) - len(unique)
    kept = _name_masks(tuple(reversed(unique.values())))
    return Manifest(kept, found.names, dict(+left_out), source, notes, options.target)


def _to_record(row: Row, label: Label) -> Record:
    split = find_split(row.split) if row.split else None
    index, targets = label
    subject = row.subject or f"row {row.line}"
    return Record(subject, row.images or (), index, split, row.line, targets, row.region)


def _name_masks(records: tuple[Record, ...]) -> tuple[Record, ...]:
    """Return the records, where several masks are of one image each with its mask's path as a name."""
    counts = Counter(record.images for record in records)
    return tuple(
        replace(one, region=name_mask(one.region, is_shared=counts[one.images] > 1)) for one in records
    )


def _refuse_unused_subjects(table: Table, source: Path) -> None:
    """Raise an error if a table repeats its subjects, but no subject column keeps them in one split."""
    for column in filter(is_subject_column, table.columns):
        names = unify_subjects([cells[column] for cells in table.rows])
        counts = Counter(name for name in names if not is_missing(name))
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            raise ManifestError(
                f"{source}: the column {column!r} repeats {list_some(repeated)}, but no subject column is "
                f"set, so one subject could be in two splits. Set 'data.subject_column={column}', or to the "
                "image column if every row really is a subject of its own."
            )


def is_subject_column(column: str) -> bool:
    """Return whether a column's name indicates that it names subjects.

    >>> [is_subject_column(name) for name in ("Subject ID", "patient_no", "ID", "Site", "No")]
    [True, True, True, False, False]
    """
    return "".join(filter(str.isalpha, column.casefold())) in _SUBJECT_COLUMNS
