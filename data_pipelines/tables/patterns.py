"""Find the image files that a table's cells name, by a path or by a pattern over columns."""

from __future__ import annotations

import glob
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.files import is_absent, is_system_entry
from voxlift.data_pipelines.tables.reader import is_missing

_FIELD = re.compile(r"\{([^{}]+)\}")


def fields_of(column: str) -> list[str]:
    """Return the table's columns that an image column needs: those of its pattern, or itself."""
    return _FIELD.findall(column) or [column]


def fill_pattern(cells: Mapping[str, str], column: str) -> str:
    """Return a path's text: the cell, or the pattern filled in with cells; empty where one is missing.

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
    """Return each volume's files, one per column; several volumes where a pattern matches several files.

    A pattern without a match is returned as it is, so that it is reported as a missing file. Where several
    columns match several files, these are paired in the order of their names.

    Args:
        cells: One row's text by column.
        columns: Column, or pattern over columns, of each channel's file.
        root: Folder that relative paths start from.
        line: Of the table, for the message.

    Raises:
        ManifestError: The columns match different numbers of files.
    """
    if not all(fill_pattern(cells, column) for column in columns):
        return []
    found = [_match_files(cells, column, root) for column in columns]
    if len({len(paths) for paths in found}) > 1:
        counts = ", ".join(f"{len(paths)} of {column}" for paths, column in zip(found, columns, strict=True))
        raise ManifestError(
            f"Row {line}: expected as many files of each channel, but the patterns match {counts}. Make them "
            "more specific, for instance for one session."
        )
    return list(zip(*found, strict=True))


def _match_files(cells: Mapping[str, str], column: str, root: Path) -> list[Path]:
    plain = _existing_form(root / Path(fill_pattern(cells, column)).expanduser())
    if column in cells or not glob.has_magic(column) or not is_absent(plain):
        return [plain]
    escaped = {name: glob.escape(cells[name]) for name in fields_of(column)}
    pattern = Path(fill_pattern(escaped, column)).expanduser()
    start = Path(pattern.anchor) if pattern.is_absolute() else root
    found = sorted(start.glob(str(pattern.relative_to(pattern.anchor))))
    return [path for path in found if not is_system_entry(path)] or [plain]


def _existing_form(path: Path) -> Path:
    """Return the path in the Unicode form in which it exists, as given where in none.

    Some systems store `é` as one character, some as two, and a table made on one is read on the other.
    """
    if str(path).isascii() or not is_absent(path):
        return path
    forms = [Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD")]
    return next((form for form in forms if not is_absent(form)), path)
