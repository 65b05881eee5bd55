"""Read the first sheet of an Excel workbook (.xlsx) as text cells."""

from __future__ import annotations

import datetime as dt
import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

from voxlift.data_pipelines.errors import ManifestError, list_some

MAX_UNPACKED = 128 * 1024 * 1024  # bytes of all parts together: a larger one is no table, or hostile
MAX_RATIO, PLAIN_BYTES = (
    100,
    2 * 1024 * 1024,
)  # of unpacked to packed bytes, of a larger part: sheets reach 20
MAX_CELLS = 5_000_000


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
