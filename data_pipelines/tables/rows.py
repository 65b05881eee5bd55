"""Read the rows of a data set as text, from a table or from a folder per class.

Labels and subjects are interpreted later, in `manifest`.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.files import (
    DICOM_DIRECTORY,
    IMAGE_SUFFIXES,
    FolderWalk,
    has_image_name,
    is_file,
    is_folder,
    is_link_to_folder_above,
    list_entries,
)
from voxlift.data_pipelines.tables.patterns import fields_of, fill_pattern, find_paths
from voxlift.data_pipelines.tables.reader import Table, is_missing, read_table, require_columns
from voxlift.data_pipelines.tables.regions import NO_REGIONS, Region, RegionColumns, find_regions
from voxlift.data_pipelines.tables.subjects import (
    describe_files_of_subjects,
    describe_similar_subjects,
    name_by_class,
    unify_subjects,
)

SPLITS = ("train", "val", "test")
CALIBRATION = "calibration"  # the split of subjects that only calibrate prediction sets; never in a table
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "tune"),
    "test": ("test", "testing", "holdout"),
}
BIDS_TABLE = "participants.tsv"
BIDS_PATTERN = "{participant_id}/ses-*/anat/*_T1w.nii.gz"

_NO_IMAGE = ((None, None, ""),)


@dataclass(frozen=True)
class TableOptions:
    """The meaning of a table's columns, the same for training and for an audit.

    Attributes:
        root: Folder that relative image paths start from; by default the table's own. `~` is expanded.
        image_column: Column with the image path, or a pattern over columns such as
            `{participant_id}/anat/{participant_id}_T1w.nii.gz`, for tables that list subjects and no files;
            `*` in a pattern finds all that match, such as a subject's sessions.
        image_columns: Instead of `image_column`, one column (or pattern) per channel.
        label_column: Column with the label.
        label_columns: Instead of `label_column`, one column per finding.
        target: What the label is: `classes`, `findings` or `number`, see `targets`.
        subject_column: Column with the subject; by default every row is a subject of its own.
        split_column: Column with train, val or test (or a common synonym).
        classes: Class names in index order; by default all labels, sorted. Rows with other labels are left
            out and counted.
        label_bins: Rising edges that cut a numeric label into classes; a value on an edge belongs above it.
        regions: Columns of each row's mask or centre.
        allow_absent: Whether classes may have no row, as in data that are only scored.
        keep_absent: Whether to keep rows whose image does not exist, for a caller that drops bad files later.
    """

    root: str | Path | None = None
    image_column: str = "image"
    image_columns: Sequence[str] = ()
    label_column: str = "label"
    label_columns: Sequence[str] = ()
    target: str = "classes"
    subject_column: str | None = None
    split_column: str | None = None
    classes: Sequence[str] = ()
    label_bins: Sequence[float] = ()
    regions: RegionColumns = NO_REGIONS
    allow_absent: bool = False
    keep_absent: bool = False


@dataclass(frozen=True)
class Row:
    """The text of one row.

    Args:
        subject: Empty where the row names none.
        images: Absolute paths, one per channel; None where the cell is empty or `n/a`.
        label: The label's text.
        split: The split's text; None where there is no such column.
        line: Line of the table, or running number in a folder.
        findings: The text of each of `label_columns`.
        region: Its mask or centre; None where the table has none.
        region_problem: Why it has none, though there is a column for it.
    """

    subject: str
    images: tuple[Path, ...] | None
    label: str
    split: str | None
    line: int
    findings: tuple[str, ...] = ()
    region: Region | None = None
    region_problem: str = ""

    @property
    def names_file(self) -> bool:
        """Whether the subject has the name of its image file, for want of another."""
        return self.images is not None and self.subject.rpartition("/")[2] == self.images[0].name


def find_split(text: str) -> str | None:
    """Return "train", "val" or "test" for a split's name or synonym, None for any other text."""
    return next((split for split, names in SPLIT_NAMES.items() if text.casefold() in names), None)


def read_rows(source: Path, options: TableOptions) -> tuple[list[Row], dict[str, str]]:
    """Return every row of a table or of a folder per class as text, and notes by kind on how it was read.

    Args:
        source: The table, or the folder.
        options: What the table's columns mean.

    Raises:
        ManifestError: The source cannot be read, or lacks a column.
    """
    if source.is_dir():
        _refuse_folder(source, options)
        rows, note = rows_of_folder(source)
        return rows, _describe_subjects(rows, shared_folders=note)
    table = read_table(source)
    rows = rows_of_table(
        table,
        root=source.parent if options.root is None else _find_root(options.root),
        image_columns=tuple(options.image_columns) or (options.image_column,),
        label_column=None if options.label_columns else options.label_column,
        label_columns=tuple(options.label_columns),
        subject_column=options.subject_column,
        split_column=options.split_column,
        regions=options.regions,
    )
    if options.subject_column in (options.image_column, *options.image_columns):
        return rows, dict(table.notes)  # the user has made each image a subject
    return rows, {**table.notes, **_describe_subjects(rows)}


def _refuse_folder(source: Path, options: TableOptions) -> None:
    if options.target != "classes":
        raise ManifestError(
            f"{source} is a folder per class, which names classes only. Set data.table to a table with the "
            f"columns of the {options.target}, or use task=classes or task=grades."
        )
    if options.regions.needed:
        raise ManifestError(
            f"{source} is a folder per class, which names no {' or '.join(options.regions.needed)}. Set "
            "data.table to a table with the masks or centres."
        )


def _describe_subjects(rows: Sequence[Row], *, shared_folders: str = "") -> dict[str, str]:
    """Return a note for each kind of doubt about which rows are of one subject."""
    files = [row.subject for row in rows if row.names_file]
    notes = {
        "shared_folders": shared_folders,
        "similar_subjects": describe_similar_subjects(row.subject for row in rows if not row.names_file),
        "files_of_one_subject": describe_files_of_subjects(files),
    }
    return {kind: note for kind, note in notes.items() if note}


def _find_root(root: str | Path) -> Path:
    path = Path(root).expanduser().absolute()
    if not path.is_dir():
        problem = "is a file" if path.exists() else "does not exist"
        raise ManifestError(
            f"data.root={root}: expected the folder that the table's image paths start from, but {path} "
            f"{problem}. Without data.root they start from the folder of the table."
        )
    return path


def rows_of_table(
    table: Table,
    *,
    root: Path,
    image_columns: tuple[str, ...],
    label_column: str | None,
    subject_column: str | None,
    split_column: str | None,
    label_columns: tuple[str, ...] = (),
    regions: RegionColumns = NO_REGIONS,
) -> list[Row]:
    """Return the table's rows, in order; without a subject column the image names the subject.

    A row whose pattern matches several files becomes as many rows, of one subject and label. Without a label
    column, as for scans to predict, the labels are empty.

    Args:
        table: The table.
        root: Folder that relative image paths start from.
        image_columns: Column, or pattern over columns, of each channel's file.
        label_column: Column of the label, or None.
        subject_column: Column of the subject, or None.
        split_column: Column of the split, or None.
        label_columns: Column of each finding.
        regions: Columns of each row's mask or centre.

    Raises:
        ManifestError: A column is missing, or the channels or masks match different numbers of files.
    """
    needed = [name for column in image_columns for name in fields_of(column)]
    labels = (label_column, *label_columns, subject_column, split_column)
    needed += [name for name in labels if name is not None]
    require_columns(table, list(dict.fromkeys(needed)))
    require_columns(table, regions.needed, setting="data.mask_column or data.centre_columns")
    subjects = _find_subjects(table, image_columns, subject_column)
    return [
        Row(
            subject=subject,
            images=images,
            label="" if label_column is None else table.with_decimal_point(cells[label_column]),
            split=None if split_column is None else cells[split_column],
            line=line,
            findings=tuple(table.with_decimal_point(cells[name]) for name in label_columns),
            region=region,
            region_problem=problem,
        )
        for line, cells, subject in zip(table.lines, table.rows, subjects, strict=True)
        for images, region, problem in find_regions(
            table,
            cells,
            regions,
            find_paths(cells, image_columns, root=root, line=line),
            root=root,
            line=line,
        )
        or _NO_IMAGE
    ]


def _find_subjects(table: Table, image_columns: tuple[str, ...], subject_column: str | None) -> list[str]:
    """Return the subject of each row; empty where it names none."""
    if subject_column is None:
        return [fill_pattern(cells, image_columns[0]) for cells in table.rows]
    names = unify_subjects([table.with_decimal_point(cells[subject_column]) for cells in table.rows])
    return ["" if is_missing(name) else name for name in names]


def rows_of_folder(root: Path) -> tuple[list[Row], str]:
    """Return one row per image of `CLASS/file` or `CLASS/subject/file`, maybe below `train`, `val`, `test`.

    Files in one subject folder share the subject; a note names the subjects that are in several classes. A
    folder that contains files but no known image is a DICOM series.

    Raises:
        ManifestError: The folder contains no images.
    """
    tops = _subfolders(root)
    class_folders: list[tuple[str | None, Path]] = [(None, top) for top in tops]
    if tops and all(find_split(top.name) for top in tops):
        class_folders = [(top.name, folder) for top in tops for folder in _subfolders(top)]
    found = [
        (split, folder, image)
        for split, folder in class_folders
        for image in sorted(_images_in(folder, FolderWalk(folder)))
    ]
    if is_file(root / BIDS_TABLE):
        raise ManifestError(
            f"{root} is a BIDS folder, not one folder per class. Set data.table={root / BIDS_TABLE}, "
            f"data.label_column and 'data.image_column=\"{BIDS_PATTERN}\"'."
        )
    if not found:
        found_here = sum(has_image_name(path) for path in list_entries(root))
        lacking = (
            f"has {found_here} images, but no folder for each class" if found_here else "contains no images"
        )
        table = (
            " For images without such folders, set data.table to a table that names them."
            if found_here
            else ""
        )
        raise ManifestError(
            f"The folder {root} {lacking}.{table} Expected {root.name}/CLASS/FILE, with files ending in "
            f"{', '.join(IMAGE_SUFFIXES)} or a folder per DICOM series."
        )
    names: dict[str, list[str]] = defaultdict(list)
    for _, folder, image in found:
        names[folder.name] += image.relative_to(folder).parts[:-1][:1]
    needs_class, note = name_by_class(names)
    rows = [
        Row(
            _subject_of_path(folder, image, needs_class=needs_class),
            (image,),
            folder.name,
            split,
            number,
        )
        for number, (split, folder, image) in enumerate(found, start=1)
    ]
    return rows, note


def _subfolders(root: Path) -> list[Path]:
    return [path for path in list_entries(root) if is_folder(path) and not is_link_to_folder_above(path)]


def _images_in(folder: Path, walk: FolderWalk) -> Iterator[Path]:
    entries = walk.entries(folder)
    yield from (path for path in entries if has_image_name(path) and not is_folder(path))
    for inner in filter(is_folder, entries):
        below = list(_images_in(inner, walk))
        files = [path for path in list_entries(inner) if path.name.upper() != DICOM_DIRECTORY]
        is_dicom_series = not below and any(map(is_file, files))
        yield from [inner] if is_dicom_series else below


def _subject_of_path(class_folder: Path, image: Path, *, needs_class: bool) -> str:
    """Return the name of the subject's folder, or for a file that is in none `CLASS/file`."""
    first, *rest = image.relative_to(class_folder).parts
    name = f"{class_folder.name}/{first}" if needs_class or not rest else first
    return unicodedata.normalize("NFC", name)
