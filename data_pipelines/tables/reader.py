"""Read a table as text cells, whatever program wrote it: delimited text, or an Excel workbook.

Blank lines do not count. All cells stay text: what a number or a missing value is, the reader of a column
decides (`values`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.suggest import closest_name
from voxlift.data_pipelines.tables.formats import decode_text, is_workbook, read_workbook, split_rows

MAX_BYTES = 256 * 1024 * 1024  # of a table's file: a larger one is an image or an archive
INVISIBLE = "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"  # soft hyphen, zero widths, marks
_DECIMAL_COMMA = re.compile(r"([+-]?(?:[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+)),([0-9]+)")


@dataclass(frozen=True)
class Table:
    """Text cells under named columns.

    Args:
        columns: The header, in file order.
        rows: For each row, its text by column, without blanks and invisible characters at the ends.
        lines: For each row, the line of the file on which it ends, as an editor counts.
        source: The file.
        has_decimal_comma: Whether numbers may be written as `67,5`. Spreadsheets separate cells by semicolons
            where the comma is the decimal mark.
        notes: How the file was read, a sentence by kind: `spanning_cells`, `other_sheets`.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    lines: tuple[int, ...]
    source: Path
    has_decimal_comma: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)

    def with_decimal_point(self, cell: str) -> str:
        """Return a number that has a decimal comma with a point instead, and any other cell unchanged.

        >>> Table((), (), (), Path("t.csv"), has_decimal_comma=True).with_decimal_point("1.067,5")
        '1067.5'
        """
        found = _DECIMAL_COMMA.fullmatch(cell) if self.has_decimal_comma else None
        return f"{found[1].replace('.', '')}.{found[2]}" if found else cell


def read_table(path: Path) -> Table:
    """Return the table in a CSV, TSV or .xlsx file, whatever program wrote it.

    Args:
        path: The file.

    Raises:
        ManifestError: The file is absent, no table or empty, or has a duplicate column, uneven rows or a
            stray quote.
    """
    content = _read_file(path)
    if is_workbook(content):
        cells, note = read_workbook(content, path)
        return _build_table(enumerate(cells, start=1), path, notes={"other_sheets": note})
    numbered, delimiter, note = split_rows(decode_text(content, path), path)
    notes = {"spanning_cells": note}
    return _build_table(numbered, path, notes=notes, has_decimal_comma=delimiter == ";")


def require_columns(
    table: Table,
    names: Sequence[str],
    *,
    setting: str = "data.image_column, data.label_column and data.subject_column",
) -> None:
    """Raise an error if the table lacks a column.

    Args:
        table: The table.
        names: The columns that it must have.
        setting: The settings that name these columns, for the message.

    Raises:
        ManifestError: Columns are missing. The message names the existing columns and the most similar ones.
    """
    missing = [name for name in names if name not in table.columns]
    if not missing:
        return
    close = [closest_name(name, table.columns) for name in missing]
    hints = [
        f"{name!r}{f' (did you mean {known!r}?)' if known else ''}"
        for name, known in zip(missing, close, strict=True)
    ]
    raise ManifestError(
        f"{table.source} has no column {list_some(hints)}. "
        f"Its columns are {list_some(map(repr, table.columns), limit=40)}. "
        f"Columns are chosen by {setting}."
    )


def strip_invisible(text: str) -> str:
    r"""Return a text without blanks and invisible characters at its ends.

    >>> strip_invisible("\ufeff p01\u00a0\u200b ")
    'p01'
    """
    stripped = text.strip()
    while stripped and (stripped[0] in INVISIBLE or stripped[-1] in INVISIBLE):
        stripped = stripped.strip(INVISIBLE).strip()
    return stripped


def _read_file(path: Path) -> bytes:
    if not path.exists():
        raise ManifestError(
            f"There is no table {path}. Set data.table to the path of a CSV, TSV or .xlsx file, or of a "
            "folder."
        )
    if not path.is_file():
        raise ManifestError(f"The table {path} is no regular file. Expected a CSV, TSV or .xlsx file.")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ManifestError(
                f"{path} has {size / 1e6:.0f} MB. Expected a table of at most {MAX_BYTES / 1e6:.0f} MB."
            )
        return path.read_bytes()
    except OSError as error:
        raise ManifestError(f"The table {path} cannot be read: {error.strerror}.") from error


def _build_table(
    numbered: Iterable[tuple[int, list[str]]],
    path: Path,
    *,
    notes: Mapping[str, str],
    has_decimal_comma: bool = False,
) -> Table:
    """Return the table of numbered rows, of which the first that is not blank is the header."""
    stripped = ((line, [strip_invisible(cell) for cell in cells]) for line, cells in numbered)
    filled = [(line, cells) for line, cells in stripped if any(cells)]
    if filled:
        _check_shape(filled[0][1], filled[1:], path)
    if len(filled) < 2:
        raise ManifestError(f"The table {path} is empty. Expected a header row and one row per image.")
    columns = tuple(filled[0][1])
    return Table(
        columns,
        rows=tuple(dict(zip(columns, cells, strict=True)) for _, cells in filled[1:]),
        lines=tuple(line for line, _ in filled[1:]),
        source=path,
        has_decimal_comma=has_decimal_comma,
        notes={kind: note for kind, note in notes.items() if note},
    )


def _check_shape(columns: Sequence[str], rows: Sequence[tuple[int, list[str]]], path: Path) -> None:
    duplicates = [name for name, count in Counter(columns).items() if count > 1]
    if duplicates:
        raise ManifestError(
            f"{path} has the column {list_some(map(repr, duplicates))} twice in its header. Rename one."
        )
    width = len(columns)
    uneven = [
        f"line {line} has {len(cells) if len(cells) < width else f'more than {width}'}"
        for line, cells in rows
        if len(cells) != width
    ]
    if uneven:
        raise ManifestError(
            f"{path} has {width} columns, but {list_some(uneven)}. Quote the cells that contain the "
            "delimiter."
        )
