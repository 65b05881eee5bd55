"""The list of what a data set holds: which image files belong to which subject, under which label.

A manifest is read from a table (CSV, TSV, a BIDS `participants.tsv`) or from a folder per class (see
`data_pipelines.tables.rows`). Nothing is dropped silently: what cannot be used is either an error or counted
in `Manifest.left_out`.

A subject may have several volumes, and its labels may differ between rows (two time points, two eyes): each
volume keeps its own label, and all volumes of a subject stay in one split.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlift.data_pipelines.tables.labels import index_labels, is_missing
from voxlift.data_pipelines.tables.reader import ManifestError, Table, list_some, read_table
from voxlift.data_pipelines.tables.rows import (
    SPLITS,
    SUFFIXES,
    Row,
    find_split,
    rows_of_folder,
    rows_of_table,
)

__all__ = ["Manifest", "ManifestError", "Record", "TableOptions", "load_manifest", "rows_of"]

# Letters alone, without blanks and marks: `Subject ID`, `subject_id` and `SubjectID` are one name.
_SUBJECT_COLUMNS = frozenset(
    f"{who}{mark}"
    for who in ("participant", "subject", "patient", "sub", "case", "")
    for mark in ("id", "nr", "no", "number", "")
) - {"", "nr", "no", "number", "case"} | {"mrn", "ptid", "rid"}  # `case` often says who is none


@dataclass(frozen=True)
class Record:
    """One row: the volume (one file per channel) of a subject, and its label.

    Args:
        subject: Who it is; never in two splits.
        images: Absolute paths, one per channel; a directory holds a DICOM series.
        label: Class index.
        split: "train", "val", "test", or None where the table does not say.
        row: Line in the table, or running number in a folder per class, from 1.
    """

    subject: str
    images: tuple[Path, ...]
    label: int
    split: str | None
    row: int


@dataclass(frozen=True)
class Manifest:
    """All usable rows of a data set.

    Args:
        records: In the table's order.
        classes: Class names; a record's label is the index.
        left_out: Reason -> number of rows that are not used.
        source: The table or folder.
    """

    records: tuple[Record, ...]
    classes: tuple[str, ...]
    left_out: Mapping[str, int]
    source: Path


@dataclass(frozen=True)
class TableOptions:
    """What the columns of a table mean, the same for training and for an audit.

    Attributes:
        root: Folder that relative image paths start from; by default the table's own. `~` is expanded.
        image_column: Column with the image path, or a pattern over columns such as
            `{participant_id}/anat/{participant_id}_T1w.nii.gz`, for tables that list subjects and no files;
            `*` in a pattern finds all that fit, as a subject's sessions.
        image_columns: Instead of `image_column`, one column (or pattern) per channel.
        label_column: Column with the label.
        subject_column: Column with the subject; by default every row is a subject of its own.
        split_column: Column with train, val or test (or a common synonym).
        classes: Class names in index order; by default all labels, sorted. Other labels are left out and
            counted.
        label_bins: Rising edges that cut a numeric label into classes; a value on an edge belongs above it.
        keep_absent: Whether rows stay whose image does not exist, for those who leave bad files out later.
    """

    root: str | Path | None = None
    image_column: str = "image"
    image_columns: Sequence[str] = ()
    label_column: str = "label"
    subject_column: str | None = None
    split_column: str | None = None
    classes: Sequence[str] = ()
    label_bins: Sequence[float] = ()
    keep_absent: bool = False


DEFAULTS = TableOptions()


def load_manifest(table: str | Path, options: TableOptions = DEFAULTS) -> Manifest:
    """Returns the usable rows of a table, or of a folder per class.

    Args:
        table: CSV or TSV file, or a folder `CLASS/file`, `CLASS/subject/file` or `train/CLASS/file`; `~` is
            expanded.
        options: What its columns mean.

    Raises:
        ManifestError: With everything that is wrong, by row.
    """
    source = Path(table).expanduser().absolute()
    if options.subject_column is None and not source.is_dir():
        _refuse_unused_subjects(read_table(source), source)
    rows = rows_of(source, options)
    rows, left_out = _drop_unnamed(rows)
    labels, names = index_labels(
        [row.label for row in rows], classes=options.classes, label_bins=options.label_bins
    )
    kept = [(row, label) for row, label in zip(rows, labels, strict=True) if isinstance(label, int)]
    left_out += Counter(label for label in labels if isinstance(label, str))
    _check_cells(kept, source)
    once = _drop_repeated(kept, source)
    left_out += Counter({"image listed twice": len(kept) - len(once)})
    if not options.keep_absent:
        _check_files((row for row, _ in once), source)
    records = tuple(
        Record(row.subject, row.images or (), label, row.split and find_split(row.split), row.line)
        for row, label in once
    )
    return Manifest(records, names, dict(left_out), source)


def rows_of(source: Path, options: TableOptions) -> list[Row]:
    """Returns every row of a table or of a folder per class, as text.

    Args:
        source: The table, or the folder.
        options: What the table's columns mean.

    Raises:
        ManifestError: It cannot be read, or lacks a column.
    """
    if source.is_dir():
        return rows_of_folder(source)
    return rows_of_table(
        read_table(source),
        root=source.parent if options.root is None else _find_root(options.root),
        image_columns=tuple(options.image_columns) or (options.image_column,),
        label_column=options.label_column,
        subject_column=options.subject_column,
        split_column=options.split_column,
    )


def _find_root(root: str | Path) -> Path:
    path = Path(root).expanduser().absolute()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ManifestError(
            f"data.root={root}: expected the folder that the table's image paths start from, but {path} "
            f"{what}. Without data.root they start from the folder of the table."
        )
    return path


def _drop_unnamed(rows: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
    """Returns the rows that name an image and, where asked for, a split; and counts the others."""
    unnamed = Counter[str]()
    kept = []
    for row in rows:
        if row.images is None:
            unnamed["image missing"] += 1
        elif row.split is not None and is_missing(row.split):
            unnamed["split missing"] += 1
        else:
            kept.append(row)
    return kept, unnamed


def _refuse_unused_subjects(table: Table, source: Path) -> None:
    """Without a subject column, a table that plainly repeats its subjects would leak them across splits."""
    for column in filter(_names_subjects, table.columns):
        counts = Counter(cells[column] for cells in table.rows if not is_missing(cells[column]))
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            raise ManifestError(
                f"{source}: the column {column!r} repeats {list_some(repeated)}, but no subject column is "
                f"set, so one subject could land in two splits. Set 'data.subject_column={column}', or name "
                "the image column there if every row really is a subject of its own."
            )


def _names_subjects(column: str) -> bool:
    """Returns whether a column's name says that it names subjects.

    >>> [_names_subjects(name) for name in ("Subject ID", "patient_no", "ID", "Site", "No")]
    [True, True, True, False, False]
    """
    return "".join(filter(str.isalpha, column.casefold())) in _SUBJECT_COLUMNS


def _check_cells(kept: Iterable[tuple[Row, int]], source: Path) -> None:
    unknown = [f"row {row.line}: {row.split!r}" for row, _ in kept if row.split and not find_split(row.split)]
    nameless = [f"row {row.line}" for row, _ in kept if not row.subject]
    if unknown:
        raise ManifestError(
            f"{source}: the split must be {', '.join(SPLITS)}, but is not in {list_some(unknown)}."
        )
    if nameless:
        raise ManifestError(
            f"{source} names no subject in {list_some(nameless)}. Fill the subject column in."
        )


def _drop_repeated(kept: Sequence[tuple[Row, int]], source: Path) -> list[tuple[Row, int]]:
    """Returns each image once: a plain repetition goes, a contradiction is an error."""
    by_images: dict[tuple[Path, ...], list[tuple[Row, int]]] = defaultdict(list)
    for row, label in kept:
        by_images[tuple(path.resolve() for path in row.images or ())].append((row, label))
    problems = [problem for images, same in by_images.items() for problem in _contradictions(images, same)]
    if problems:
        raise ManifestError(f"{source} contradicts itself: {list_some(problems)}. Keep one row per image.")
    return [same[0] for same in by_images.values()]


def _contradictions(images: tuple[Path, ...], same: Sequence[tuple[Row, int]]) -> list[str]:
    rows = [row for row, _ in same]
    said = {
        "label": [row.label for row in rows] if len({label for _, label in same}) > 1 else [],
        "subject": [row.subject for row in rows],
        "split": [str(row.split) for row in rows],
    }
    lines = " and ".join(str(row.line) for row in rows[:2])
    return [
        f"rows {lines} give {images[0]} two {what}s ({list_some(sorted(set(values)))})"
        for what, values in said.items()
        if len(set(values)) > 1
    ]


def _beside(path: Path) -> str:
    """Returns a hint at a file of that name with an ending, where a table leaves the ending out."""
    whole = [path.name + suffix for suffix in SUFFIXES if (path.parent / f"{path.name}{suffix}").is_file()]
    return f" (there is {whole[0]})" if whole else ""


def _check_files(rows: Iterable[Row], source: Path) -> None:
    lost = [(row.line, path) for row in rows for path in row.images or () if not path.exists()]
    absent = [f"row {line}: {path}{_beside(path)}" for line, path in lost]
    if absent:
        images = "images that do" if len(absent) > 1 else "image that does"
        raise ManifestError(
            f"{source} names {len(absent)} {images} not exist: "
            f"{list_some(absent)}. "
            "Relative paths start from data.root, by default the folder of the table. "
            "Leave them out with data.on_bad_file=skip."
        )
