"""Read a delimited text table as text cells, whatever program wrote it.

The header decides between comma, tab and semicolon, so that a `.txt` or a misnamed file reads too. Byte order
marks, quoted cells and blank lines are read as spreadsheets write them. All cells stay text: what a number or
a missing value is, the reader of a column decides (`values`).
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import functools
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.suggest import closest_name

log = logging.getLogger("voxlift")

_DELIMITERS = ("\t", ",", ";")
_DECIMAL_COMMA = re.compile(r"([+-]?(?:\d+|\d{1,3}(?:\.\d{3})+)),(\d+)")


@dataclass(frozen=True)
class Table:
    """Text cells under named columns.

    Args:
        columns: The header, in file order.
        rows: For each row, its stripped text by column.
        lines: For each row, the line of the file on which it ends, as an editor counts.
        source: The file.
        has_decimal_comma: Whether numbers may be written as `67,5`. Spreadsheets separate cells by semicolons
            where the comma is the decimal mark.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    lines: tuple[int, ...]
    source: Path
    has_decimal_comma: bool = False

    def with_decimal_point(self, cell: str) -> str:
        """Return a number that has a decimal comma with a point instead, and any other cell unchanged.

        >>> Table((), (), (), Path("t.csv"), has_decimal_comma=True).with_decimal_point("1.067,5")
        '1067.5'
        """
        found = _DECIMAL_COMMA.fullmatch(cell) if self.has_decimal_comma else None
        return f"{found[1].replace('.', '')}.{found[2]}" if found else cell


def read_table(path: Path) -> Table:
    """Return the table in a CSV or TSV file, whatever program wrote it.

    Args:
        path: The file.

    Raises:
        ManifestError: The file is absent, not text or empty, or has a duplicate column or uneven rows.
    """
    if not path.exists():
        raise ManifestError(
            f"There is no table {path}. Set data.table to the path of a CSV or TSV file, or of a folder."
        )
    lines = _decode(path).splitlines(keepends=True)
    delimiter = _find_delimiter(lines)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    numbered = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    numbered = [(line, cells) for line, cells in numbered if any(cells)]
    if numbered:
        _check_shape(numbered[0][1], numbered[1:], path)
    if len(numbered) < 2:
        raise ManifestError(f"The table {path} is empty. Expected a header row and one row per image.")
    columns = tuple(numbered[0][1])
    return Table(
        columns,
        rows=tuple(dict(zip(columns, cells, strict=True)) for _, cells in numbered[1:]),
        lines=tuple(line for line, _ in numbered[1:]),
        source=path,
        has_decimal_comma=delimiter == ";",
    )


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


def _decode(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"The table {path} cannot be read: {error.strerror}.") from error
    # Excel's "Unicode text" is UTF-16 with a byte order mark.
    is_utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = raw.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        text = _decode_windows(raw, path, error)
    if "\0" in text:
        raise ManifestError(f"The table {path} contains binary data. Export it as CSV or TSV text.")
    return text


def _decode_windows(raw: bytes, path: Path, error: UnicodeDecodeError) -> str:
    """Decode what Western European spreadsheets save as CSV by default, with a warning."""
    with contextlib.suppress(UnicodeDecodeError):
        text = raw.decode("cp1252")
        if not any(unicodedata.category(char) == "Cc" for char in set(text) - set("\t\r\n")):
            _warn_of_windows(path, list_some(sorted({char for char in text if not char.isascii()})))
            return text
    raise ManifestError(
        f"The table {path} is not UTF-8 text (byte {error.start}). Save it as CSV in UTF-8; "
        "spreadsheet files (.xlsx) must be exported first."
    ) from error


@functools.cache  # a command reads its table several times, and warns once
def _warn_of_windows(path: Path, characters: str) -> None:
    log.warning(
        "%s is not UTF-8; it was read as Windows-1252, with the characters %s. If they look wrong, save "
        "it as CSV in UTF-8.",
        path,
        characters,
    )


def _find_delimiter(lines: Sequence[str]) -> str:
    header = next((line for line in lines if line.strip()), "")
    counts = [len(next(csv.reader([header], delimiter=mark), [])) for mark in _DELIMITERS]
    # Of equal counts the first is taken: a tab wins over a comma inside a name.
    return _DELIMITERS[counts.index(max(counts))]


def _check_shape(columns: Sequence[str], rows: Sequence[tuple[int, list[str]]], path: Path) -> None:
    duplicates = [name for name, count in Counter(columns).items() if count > 1]
    if duplicates:
        raise ManifestError(
            f"{path} has the column {list_some(map(repr, duplicates))} twice in its header. Rename one."
        )
    uneven = [f"line {line} has {len(cells)}" for line, cells in rows if len(cells) != len(columns)]
    if uneven:
        raise ManifestError(
            f"{path} has {len(columns)} columns, but {list_some(uneven)}. Quote the cells that contain the "
            "delimiter."
        )
