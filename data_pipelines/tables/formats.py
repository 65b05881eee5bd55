r"""Split the file of a table into rows of text cells: delimited text, or a sheet of an Excel workbook.

Text is UTF-8, or UTF-16 with a byte order mark, else Windows-1252. Pandas splits it. It cannot distinguish
a cell that spans lines from a stray quote that hides the rows after it, so the lines of the file are counted
against those that the rows take up. Only `\n`, `\r\n` and `\r` end a line: a vertical tab or another
separator inside a cell is text. Of a workbook the first visible sheet is read.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import datetime as dt
import functools
import io
import logging
import re
import unicodedata
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.files import has_image_name

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("voxlift")

# Of delimiters that suit a table equally well the first is taken: a tab wins over a comma inside a name.
DELIMITERS = ("\t", ",", ";")
MAX_UNEVEN_CELLS = 10_000_000  # pandas fills each row up to the width of the header
_QUOTED = re.compile(r'"[^"]*"?')
_BLANKS_AFTER_QUOTE = re.compile(r'"[ \t]+(?=[\t,;\n]|\Z)')
_COMMAS_IN_NUMBERS = re.compile(r"(?:[^,]|(?<=[0-9]),(?=[0-9]))*")
_DECLARED = re.compile(r'"?sep=([\t,;|:])"?\s*')  # a first line by which Excel declares the delimiter
OLD_EXCEL = b"\xd0\xcf\x11\xe0"  # how the container of an .xls file begins
_CONTROLS = frozenset("\t\r\n\v\f\x1c\x1d\x1e\x1f")  # that stand in texts
MAX_UNPACKED = 128 * 1024 * 1024  # bytes of all parts together: a larger one is no table, or hostile
MAX_RATIO = 100  # of unpacked to packed bytes, of a part above `PLAIN_BYTES`: sheets reach 20
PLAIN_BYTES = 2 * 1024 * 1024
MAX_CELLS = 5_000_000


def split_rows(text: str, path: Path) -> tuple[list[tuple[int, list[str]]], str, str]:
    """Return every row with the line on which it ends, the delimiter, and a note on cells that span lines.

    Blank lines are rows without cells, or with empty ones. A row with more cells than the header is cut after
    the first that is too many.

    Args:
        text: Of the file.
        path: The file, for messages.

    Raises:
        ManifestError: A quote is stray or unclosed, or a cell is too long.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    declared = _DECLARED.fullmatch(lines[0])
    if declared:
        lines[0] = ""
    delimiter = declared[1] if declared else find_delimiter(lines)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        return [], delimiter, ""
    rows = _read_cells(lines, delimiter, path)
    if len(rows) == len(lines):
        return list(enumerate(rows, start=1)), delimiter, ""
    numbered, spans = _number_rows(rows, lines, delimiter, path)
    return numbered, delimiter, f"Quoted cells span lines: {list_some(spans)}."


def find_delimiter(lines: Sequence[str]) -> str:
    r"""Return the delimiter by which most lines have as many cells as the header.

    >>> find_delimiter(["subject\tAge, in years, at the scan", "p1\t71", "p2\t80"])
    '\t'
    >>> find_delimiter(["image;size, mm", "a.nii;4,9", "b.nii;5,0"])
    ';'
    """
    header, *rest = [_QUOTED.sub("", line) for line in lines if line.strip()] or [""]
    matching = {
        mark: sum(line.count(mark) == header.count(mark) for line in rest)
        for mark in DELIMITERS
        if mark in header
    }
    if not any(matching.values()):  # every row is uneven, or there is one column, whose name has the mark
        matching = {mark: 0 for mark in matching if not rest or any(mark in line for line in rest)}
    best = [mark for mark in matching if matching[mark] == max(matching.values())]
    if "," in best and ";" in best and all(map(_COMMAS_IN_NUMBERS.fullmatch, rest)):
        best.remove(",")
    return max(best, key=header.count, default=DELIMITERS[0])


def _read_cells(lines: list[str], delimiter: str, path: Path) -> list[list[str]]:
    """Return the cells of each row; those of a blank line are none.

    Raises:
        ManifestError: The rows do not take up all lines of the file.
    """
    import pandas as pd  # noqa: PLC0415 - `--help` and a configuration error answer without it

    text = "\n".join(lines)
    for attempt in (text, _BLANKS_AFTER_QUOTE.sub('"', text)):
        # At a quote that is not closed, or a cell that is too long, pandas stops or leaves the row out.
        with contextlib.suppress(pd.errors.ParserError, csv.Error):
            rows = _drop_absent(_read_frame(attempt, delimiter, path))
            if sum(map(_count_lines, rows)) == len(lines):
                return rows
    raise _describe_fault(lines, delimiter, path)


def _drop_absent(frame: pd.DataFrame) -> list[list[str]]:
    """Return the cells that each row has."""
    counts = frame.notna().to_numpy().sum(axis=1).tolist()
    return [cells[:count] for cells, count in zip(frame.to_numpy(object).tolist(), counts, strict=True)]


def _count_lines(row: Sequence[str]) -> int:
    return 1 + sum(cell.count("\n") for cell in row)


def _read_frame(text: str, delimiter: str, path: Path) -> pd.DataFrame:
    """Return a column more than the header has, with NaN where a row has no cell."""
    import pandas as pd  # noqa: PLC0415 - `--help` and a configuration error answer without it

    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    width = max(1, len(_find_header(reader)))
    height = text.count("\n") + 1
    if height * width > MAX_UNEVEN_CELLS + len(text):
        raise ManifestError(
            f"{path} has {width} columns and {height} lines, but only {len(text)} characters. "
            "Check its header."
        )

    def cut(cells: list[str]) -> list[str]:
        return [*cells[:width], delimiter.join(cells[width:])]

    return pd.read_csv(
        io.StringIO(text),
        sep=delimiter,
        header=None,
        names=range(width + 1),
        dtype=str,
        keep_default_na=False,
        skip_blank_lines=False,
        skipinitialspace=True,
        engine="python",  # the C engine reads a missing cell as an empty one
        on_bad_lines=cut,
    )


def _find_header(rows: Iterable[list[str]]) -> list[str]:
    """Return the first row with text; empty where there is none."""
    return next((cells for cells in rows if any(map(str.strip, cells))), [])


def _number_rows(
    rows: Sequence[list[str]], lines: Sequence[str], delimiter: str, path: Path
) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Return each row with the line on which it ends, and the lines of rows that take up several.

    Raises:
        ManifestError: A quote hides rows.
    """
    width = len(_find_header(rows))
    numbered: list[tuple[int, list[str]]] = []
    spans: list[str] = []
    line = 0
    for row in rows:
        first, line = line + 1, line + _count_lines(row)
        if line > first:
            if sum(one.count(delimiter) + 1 >= width for one in lines[first - 1 : line]) > 1:
                raise _describe_quote(path, f"in lines {first} to {line}, which look like rows of their own")
            spans.append(f"{first} to {line}")
        numbered.append((line, row))
    return numbered, spans


def _describe_fault(lines: Sequence[str], delimiter: str, path: Path) -> ManifestError:
    """Return the error that names the row which cannot be split."""
    reader = csv.reader(
        [f"{line}\n" for line in lines], delimiter=delimiter, skipinitialspace=True, strict=True
    )
    first = 1
    try:
        for _ in reader:
            first = reader.line_num + 1
    except csv.Error as error:
        if "limit" in str(error):
            return ManifestError(
                f"{path}: a cell of the row that begins on line {first} has more than "
                f"{csv.field_size_limit():,} characters. Close its quote, or shorten the cell."
            )
    return _describe_quote(path, f"in the row that begins on line {first}")


def _describe_quote(path: Path, where: str) -> ManifestError:
    return ManifestError(
        f'{path}: a quote (") is not closed, or stands inside a cell, {where}. Put the whole cell in quotes, '
        "and write each quote inside it twice; or remove the quote."
    )


def decode_text(raw: bytes, path: Path) -> str:
    """Return the text of a table's file.

    Args:
        raw: Content of the file.
        path: The file, for messages.

    Raises:
        ManifestError: It is no text.
    """
    if raw.startswith(OLD_EXCEL):
        raise ManifestError(f"The table {path} is an old Excel file. Save it as .xlsx or as CSV in UTF-8.")
    if has_image_name(path):
        raise ManifestError(
            f"{path} is an image, not a table. Expected a CSV, TSV or .xlsx with a row for each image."
        )
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
        if not any(unicodedata.category(char) == "Cc" for char in set(text) - _CONTROLS):
            _warn_of_windows(path, list_some(sorted({char for char in text if not char.isascii()})))
            return text
    raise ManifestError(
        f"The table {path} is not UTF-8 text (byte {error.start}). Save it as CSV in UTF-8, or as .xlsx."
    ) from error


@functools.cache  # a command reads its table several times, and warns once
def _warn_of_windows(path: Path, characters: str) -> None:
    log.warning(
        "%s is not UTF-8; it was read as Windows-1252, with the characters %s. If they look wrong, save "
        "it as CSV in UTF-8.",
        path,
        characters,
    )


def is_workbook(content: bytes) -> bool:
    """Return whether a file's content is an archive, as a workbook is."""
    return content.startswith(b"PK") and zipfile.is_zipfile(io.BytesIO(content))


def read_workbook(content: bytes, path: Path) -> tuple[list[list[str]], str]:
    """Return the cells of each row of the first visible sheet, and a note on other sheets.

    Numbers are written as in a CSV export (`7`, `67.5`), dates in ISO 8601, truth values as TRUE and FALSE.

    Args:
        content: Of the file.
        path: The file, for messages.

    Raises:
        ManifestError: It is no workbook, or too large.
    """
    _check_archive(content, path)
    import openpyxl  # type: ignore[import-untyped]  # noqa: PLC0415 - `--help` and a configuration error answer without it

    try:
        with warnings.catch_warnings():  # of styles and extensions that concern no cell
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
            sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"] or book.worksheets
            rows = _read_sheet(sheets[0], path)
    except ManifestError:
        raise
    except Exception as error:
        raise ManifestError(
            f"The workbook {path} cannot be read ({type(error).__name__}). Save it again, or as CSV in UTF-8."
        ) from error
    others = [repr(sheet.title) for sheet in sheets[1:]]
    note = f"The sheet {sheets[0].title!r} was read, and not {list_some(others)}."
    return rows, note if others else ""


def _check_archive(content: bytes, path: Path) -> None:
    """Raise an error unless the archive holds a workbook of moderate size."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            sizes = {part.filename: part.file_size for part in archive.infolist()}
            packed = {part.filename: part.compress_size for part in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise ManifestError(f"The workbook {path} is damaged. Save it again, or as CSV in UTF-8.") from error
    if "xl/workbook.xml" not in sizes:
        raise ManifestError(
            f"The table {path} is an archive without an Excel workbook. Save it as .xlsx, or as CSV in UTF-8."
        )
    bombs = [name for name, size in sizes.items() if size > PLAIN_BYTES and size > MAX_RATIO * packed[name]]
    if bombs:
        raise ManifestError(
            f"The workbook {path} holds a part that unpacks to more than {MAX_RATIO} times its size "
            f"({bombs[0]}), as no table does. Save it again, or as CSV in UTF-8."
        )
    if sum(sizes.values()) > MAX_UNPACKED:
        raise ManifestError(
            f"The workbook {path} unpacks to {sum(sizes.values()) / 1e6:.0f} MB. Expected at most "
            f"{MAX_UNPACKED / 1e6:.0f} MB; save its table as CSV in UTF-8."
        )


def _read_sheet(sheet: Any, path: Path) -> list[list[str]]:  # noqa: ANN401 - openpyxl has no types
    """Return the text of all rows, padded to the width of the first that is not blank."""
    sheet.reset_dimensions()  # the file may state a wrong extent
    rows: list[list[str]] = []
    cells, width = 0, 0
    for values in sheet.iter_rows(values_only=True):
        row = list(map(_to_text, values))
        while row and not row[-1]:
            row.pop()
        width = width or len(row)
        cells += 1 + max(len(row), width)
        if cells > MAX_CELLS:
            raise ManifestError(
                f"The workbook {path} has more than {MAX_CELLS:,} cells. Save it as CSV in UTF-8."
            )
        rows.append(row + [""] * (width - len(row)))
    return rows


def _to_text(value: object) -> str:
    """Return a cell's value as its CSV export would write it.

    >>> [_to_text(value) for value in (None, True, 7.0, 67.5, dt.datetime(2024, 5, 1))]
    ['', 'TRUE', '7', '67.5', '2024-05-01']
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dt.datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    return str(value)
