"""Reads a delimited text table as cells, whatever program wrote it.

Comma, tab or semicolon is told from the header itself, so that a `.txt` or a misnamed file reads too. Byte
order marks, quoted cells and blank lines are taken as spreadsheets write them. All cells stay text: what a
number or a missing value is belongs to whoever asks for a column.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import difflib
import functools
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlift.data_pipelines.errors import DataError

log = logging.getLogger("voxlift")

_DELIMITERS = ("\t", ",", ";")
_DECIMAL_COMMA = re.compile(r"([+-]?(?:\d+|\d{1,3}(?:\.\d{3})+)),(\d+)")


class ManifestError(DataError):
    """The user's table, folder or file list cannot be used as it stands."""


@dataclass(frozen=True)
class Table:
    """Text cells under named columns.

    Args:
        columns: The header, in file order.
        rows: One mapping from column to stripped text per row.
        lines: The line of the file on which each row ends, as an editor counts.
        source: The file.
        has_decimal_comma: Whether numbers may be written as `67,5`: cells are parted by semicolons, which is
            how spreadsheets write where the comma is the decimal mark.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    lines: tuple[int, ...]
    source: Path
    has_decimal_comma: bool = False

    def spell_number(self, cell: str) -> str:
        """Returns a number with a decimal comma as one with a point; any other cell as it stands.

        >>> Table((), (), (), Path("t.csv"), has_decimal_comma=True).spell_number("1.067,5")
        '1067.5'
        """
        found = _DECIMAL_COMMA.fullmatch(cell) if self.has_decimal_comma else None
        return f"{found[1].replace('.', '')}.{found[2]}" if found else cell


def list_some(items: Iterable[object], *, limit: int = 10) -> str:
    """Returns at most `limit` items as text and counts the rest.

    >>> list_some(["a", "b", "c"], limit=2)
    'a, b and 1 more'

    Args:
        items: Anything with a text.
        limit: How many are shown.
    """
    texts = [str(item) for item in items]
    shown = ", ".join(texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit} more"


def read_table(path: Path) -> Table:
    """Returns the table in `path`.

    Args:
        path: A CSV or TSV file, whatever program wrote it.

    Raises:
        ManifestError: The file is absent, not text, empty, or has a doubled column or a row of another width.
    """
    if not path.exists():
        raise ManifestError(
            f"There is no table {path}. Give data.table the path of a CSV or TSV file, or a folder."
        )
    lines = _decode(path).splitlines(keepends=True)
    delimiter = _find_delimiter(lines)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    numbered = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    numbered = [(line, cells) for line, cells in numbered if any(cells)]
    if numbered:
        _check_shape(tuple(numbered[0][1]), numbered[1:], path)
    if len(numbered) < 2:
        raise ManifestError(f"The table {path} is empty: a header row and one row per image are expected.")
    columns = tuple(numbered[0][1])
    rows = tuple(dict(zip(columns, cells, strict=True)) for _, cells in numbered[1:])
    lines_of_rows = tuple(line for line, _ in numbered[1:])
    return Table(columns, rows, lines_of_rows, path, has_decimal_comma=delimiter == ";")


def require_columns(
    table: Table, names: Sequence[str], *, told_by: str = "image_column, label_column and subject_column say"
) -> None:
    """Passes when the table has every column in `names`.

    Args:
        table: Whose columns are asked for.
        names: The columns that are needed.
        told_by: The settings that name them, with their verb, for the message.

    Raises:
        ManifestError: Columns are missing; the message names those that exist and the nearest matches.
    """
    absent = [name for name in names if name not in table.columns]
    if not absent:
        return
    hinted = [f"{name!r}{_nearest(name, table.columns)}" for name in absent]
    raise ManifestError(
        f"{table.source} has no column {list_some(hinted)}. "
        f"Its columns are {list_some(map(repr, table.columns), limit=40)}; {told_by} which are meant."
    )


def _nearest(name: str, columns: Sequence[str]) -> str:
    """Returns a hint at the column of nearly this name, or of which one name begins the other.

    >>> _nearest("age", ["Age (y)", "image"]), _nearest("image", ["age"])
    (" (did you mean 'Age (y)'?)", '')
    """
    wanted = _letters(name)
    # Of one first letter, so that "image" does not bring "age" to mind.
    plain = {_letters(column): column for column in columns if _letters(column)[:1] == wanted[:1]}
    close = difflib.get_close_matches(wanted, plain, n=1, cutoff=0.6)
    close += [one for one in plain if one.startswith(wanted) or wanted.startswith(one)]
    return f" (did you mean {plain[close[0]]!r}?)" if close else ""


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _decode(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"The table {path} cannot be read: {error.strerror}.") from error
    # Excel's "Unicode text" is UTF-16 with a byte order mark.
    is_wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = raw.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        text = _decode_windows(raw, path, error)
    if "\0" in text:
        raise ManifestError(f"The table {path} holds binary data. Export it as CSV or TSV text.")
    return text


def _decode_windows(raw: bytes, path: Path, error: UnicodeDecodeError) -> str:
    """What spreadsheets of Western Europe save as CSV unless asked otherwise; read with a warning."""
    with contextlib.suppress(UnicodeDecodeError):
        text = raw.decode("cp1252")
        if not any(unicodedata.category(mark) == "Cc" for mark in set(text) - set("\t\r\n")):
            _warn_of_windows(path, list_some(sorted({mark for mark in text if not mark.isascii()})))
            return text
    raise ManifestError(
        f"The table {path} is not UTF-8 text (byte {error.start}). Save it as CSV in UTF-8; "
        "spreadsheet files (.xlsx) must be exported first."
    ) from error


@functools.cache  # a command reads its table several times, and says this once
def _warn_of_windows(path: Path, signs: str) -> None:
    log.warning(
        "%s is not UTF-8; it was read as Windows-1252, with the signs %s. If they look wrong, save it as CSV "
        "in UTF-8.",
        path,
        signs,
    )


def _find_delimiter(lines: Sequence[str]) -> str:
    header = next((line for line in lines if line.strip()), "")
    # max keeps the first of equals, so a tab wins over a comma inside a name.
    return max(_DELIMITERS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def _check_shape(columns: Sequence[str], rows: Sequence[tuple[int, list[str]]], path: Path) -> None:
    doubled = [name for name, count in Counter(columns).items() if count > 1]
    if doubled:
        raise ManifestError(
            f"{path} names the column {list_some(map(repr, doubled))} twice in its header. Rename one."
        )
    uneven = [f"line {line} has {len(cells)}" for line, cells in rows if len(cells) != len(columns)]
    if uneven:
        raise ManifestError(
            f"{path} has {len(columns)} columns, but {list_some(uneven)}. Quote the cells that hold the "
            "delimiter."
        )
