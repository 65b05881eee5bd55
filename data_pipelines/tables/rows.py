"""Rows of text, from a table or from a folder per class, before labels and subjects are made sense of."""

from __future__ import annotations

import glob
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from voxlift.data_pipelines.tables.labels import is_missing
from voxlift.data_pipelines.tables.reader import ManifestError, Table, require_columns

SPLITS = ("train", "val", "test")
_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "tune"),
    "test": ("test", "testing", "holdout"),
}
SUFFIXES = (".nii", ".nii.gz", ".hdr", ".mgh", ".mgz", ".nrrd", ".nhdr", ".mha", ".mhd")

BIDS_TABLE = "participants.tsv"
BIDS_PATTERN = "{participant_id}/ses-*/anat/*_T1w.nii.gz"
_NO_IMAGE: tuple[None] = (None,)


@dataclass(frozen=True)
class Row:
    """What one row says, as text.

    Args:
        subject: Empty where the row does not name one.
        images: Absolute paths, one per channel; None where the cell is empty or `n/a`.
        label: The label's text.
        split: The split's text; None where there is no such column.
        line: Line of the table, or running number in a folder.
    """

    subject: str
    images: tuple[Path, ...] | None
    label: str
    split: str | None
    line: int


def find_split(text: str) -> str | None:
    """Returns "train", "val" or "test" for a split's name or synonym, None for any other text."""
    return next((split for split, names in _NAMES.items() if text.casefold() in names), None)


def rows_of_table(
    table: Table,
    *,
    root: Path,
    image_columns: tuple[str, ...],
    label_column: str | None,
    subject_column: str | None,
    split_column: str | None,
) -> list[Row]:
    """Returns the table's rows, in order; without a subject column the images are the subject.

    A row whose open pattern finds several files becomes as many rows, of one subject and label.

    Without a label column, as where a model is to say the label, the labels are empty.

    Args:
        table: The table.
        root: Folder that relative image paths start from.
        image_columns: Column, or pattern over columns, of each channel's file.
        label_column: Column of the label, or None.
        subject_column: Column of the subject, or None.
        split_column: Column of the split, or None.

    Raises:
        ManifestError: A column is missing, or channels find different numbers of files.
    """
    needed = [name for column in image_columns for name in fields_of(column)]
    needed += [name for name in (label_column, subject_column, split_column) if name is not None]
    require_columns(table, list(dict.fromkeys(needed)))
    return [
        Row(
            subject=_name(cells, image_columns, subject_column),
            images=images,
            label="" if label_column is None else table.spell_number(cells[label_column]),
            split=None if split_column is None else cells[split_column],
            line=line,
        )
        for line, cells in zip(table.lines, table.rows, strict=True)
        for images in find_paths(cells, image_columns, root=root, line=line) or _NO_IMAGE
    ]


def rows_of_folder(root: Path) -> list[Row]:
    """Returns one row per image of `CLASS/file` or `CLASS/subject/file`, below `train`, `val`, `test` or not.

    Files in one subject folder share the subject; a folder that holds files but no known image is a DICOM
    series.

    Raises:
        ManifestError: The folder holds no images.
    """
    tops = _folders(root)
    has_splits = bool(tops) and all(find_split(top.name) for top in tops)
    found: list[tuple[str | None, Path]] = [(None, top) for top in tops]
    if has_splits:
        found = [(top.name, folder) for top in tops for folder in _folders(top)]
    listed = [(split, folder, image) for split, folder in found for image in sorted(_images(folder))]
    if (root / BIDS_TABLE).is_file():
        raise ManifestError(
            f"{root} is a BIDS folder, not one folder per class. Give data.table={root / BIDS_TABLE}, its "
            f"data.label_column and 'data.image_column=\"{BIDS_PATTERN}\"'."
        )
    if not listed:
        raise ManifestError(
            f"The folder {root} holds no images. Expected {root.name}/CLASS/FILE, with files ending in "
            f"{', '.join(SUFFIXES)} or a folder per DICOM series."
        )
    return [
        Row(_folder_subject(folder, image), (image,), folder.name, split, number)
        for number, (split, folder, image) in enumerate(listed, start=1)
    ]


def _name(cells: Mapping[str, str], image_columns: tuple[str, ...], subject_column: str | None) -> str:
    if subject_column is None:
        return text_of(cells, image_columns[0])
    # One name in two encodings of its accents would be two subjects, and could land in two splits.
    name = unicodedata.normalize("NFC", cells[subject_column])
    return "" if is_missing(name) else name


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> Iterator[Path]:
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    yield from (path for path in files if path.name.lower().endswith(SUFFIXES))
    for inner in _folders(folder):
        below = list(_images(inner))
        yield from below or ([inner] if any(path.is_file() for path in inner.iterdir()) else [])


def _folder_subject(class_folder: Path, image: Path) -> str:
    inner = image.relative_to(class_folder)
    return inner.parts[0] if len(inner.parts) > 1 else f"{class_folder.name}/{inner.name}"


_FIELD = re.compile(r"\{([^{}]+)\}")


def fields_of(column: str) -> list[str]:
    """Returns the table's columns that an image column needs: those of its pattern, or itself."""
    return _FIELD.findall(column) or [column]


def text_of(cells: Mapping[str, str], column: str) -> str:
    """Returns a path's text: the cell, or the pattern with cells filled in; empty where one is missing.

    Args:
        cells: One row's text by column.
        column: A column's name, or a pattern over columns.
    """
    if any(is_missing(cells[name]) for name in fields_of(column)):
        return ""
    if column in cells:
        return cells[column]
    return _FIELD.sub(lambda field: cells[field[1]], column)


def find_paths(
    cells: Mapping[str, str], columns: tuple[str, ...], *, root: Path, line: int
) -> list[tuple[Path, ...]]:
    """Returns each volume's files, one per column; several volumes where an open pattern finds several.

    A pattern that finds nothing stands for itself, so that it is reported as absent. Where several columns
    find several files, these belong together in the order of their names.

    Args:
        cells: One row's text by column.
        columns: Column, or pattern over columns, of each channel's file.
        root: Folder that relative paths start from.
        line: Of the table, for the message.

    Raises:
        ManifestError: The columns find different numbers of files.
    """
    if not all(text_of(cells, column) for column in columns):
        return []
    found = [_matches(cells, column, root) for column in columns]
    if len({len(paths) for paths in found}) > 1:
        counts = ", ".join(f"{len(paths)} of {column}" for paths, column in zip(found, columns, strict=True))
        raise ManifestError(
            f"Row {line}: expected as many files of each channel, but the patterns find {counts}. Narrow "
            "them, for instance to one session."
        )
    return list(zip(*found, strict=True))


def _matches(cells: Mapping[str, str], column: str, root: Path) -> list[Path]:
    plain = _as_stored(root / Path(text_of(cells, column)).expanduser())
    if column in cells or not glob.has_magic(column) or plain.exists():
        return [plain]
    literal = {name: glob.escape(cells[name]) for name in fields_of(column)}
    pattern = Path(text_of(literal, column)).expanduser()
    place = Path(pattern.anchor) if pattern.is_absolute() else root
    return sorted(place.glob(str(pattern.relative_to(pattern.anchor)))) or [plain]


def _as_stored(path: Path) -> Path:
    """Returns the path in the encoding of its accents in which it exists, as given where in none.

    Some systems store `é` as one sign, some as two, and a table made on one is read on the other.
    """
    if str(path).isascii() or path.exists():
        return path
    forms = [Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD")]
    return next((form for form in forms if form.exists()), path)
