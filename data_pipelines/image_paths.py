"""From a table's row to the image files that it means: a column's cell, or a pattern over columns.

A pattern fills cells in between braces, `{participant_id}/anat/{participant_id}_T1w.nii.gz`, and may leave
open what the table does not say, as the sessions of a BIDS folder: `{participant_id}/ses-*/anat/*_T1w.nii.gz`
finds all of a subject's files. A cell is always taken literally, whatever marks a file's name holds.
"""

import glob
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from voxlift.data_pipelines.labels import is_missing
from voxlift.data_pipelines.tables import ManifestError

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
