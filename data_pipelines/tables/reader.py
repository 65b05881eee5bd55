"""Read a table as text cells, whatever program wrote it, and its cells as class indices, numbers or text.

Blank lines do not count. All cells stay text until a column is read. A cell is missing where it is empty or
one of `n/a`, `NA`, `NaN`, `#N/A`, `NULL`, `<NA>`, unless a class has that very name. Labels are compared
after Unicode normalisation (NFC), and an integer written as `1.0` (as spreadsheets write an integer column
with gaps) equals `1`.
"""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from voxlift.data_pipelines.errors import ManifestError, closest_name, list_some
from voxlift.data_pipelines.tables.formats import decode_text, is_workbook, read_workbook, split_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("voxlift")

MAX_BYTES = 256 * 1024 * 1024  # of a table's file: a larger one is an image or an archive
INVISIBLE = "\u00ad\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"  # soft hyphen, zero widths, marks
_DECIMAL_COMMA = re.compile(r"([+-]?(?:[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+)),([0-9]+)")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LIMIT = re.compile(
    rf"[<>\N{{LESS-THAN OR EQUAL TO}}\N{{GREATER-THAN OR EQUAL TO}}]=?\s*({_NUMBER.pattern})"
    rf"|({_NUMBER.pattern})\s*\+"
)
_MISSING = frozenset({"", "n/a", "na", "nan", "#n/a", "null", "<na>"})


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


def is_missing(cell: str) -> bool:
    """Return whether a table's cell stands for "no value"."""
    return cell.casefold() in _MISSING


def is_number(text: str) -> bool:
    """Return whether a label is written as a number."""
    return not math.isnan(parse_number(text))


def index_labels(
    cells: Sequence[str],
    *,
    classes: Sequence[str] = (),
    label_bins: Sequence[float] = (),
    allow_absent: bool = False,
) -> tuple[tuple[int | str, ...], tuple[str, ...]]:
    """Return each cell's class index, or the reason why it has none, and the class names in index order.

    Args:
        cells: The label column's text.
        classes: Class names in index order; by default all labels found, sorted (numbers by value).
        label_bins: Rising edges that cut a numeric column: class 0 is below the first edge, the last class
            starts at the last edge.
        allow_absent: Whether some classes may have no cell, as in data that are only scored.

    Raises:
        ManifestError: The classes or edges contradict each other, fewer than two classes are left, or one is
            empty.
    """
    names = tuple(_compose(str(name)) for name in classes)
    _check_names(tuple(map(_normalise, names)), label_bins)
    if label_bins:
        found: list[int | str] = [_bin_cell(cell, label_bins) for cell in cells]
    else:
        texts = [_normalise(cell) for cell in cells]
        names = names or _sort_names({text for text in texts if not is_missing(text)})
        forms = tuple(map(_normalise, names))
        found = [_index_label(text, forms) for text in texts]
    _check_found(found, names, allow_absent=allow_absent)
    return tuple(found), names


def read_columns(source: str | Path, rows: Sequence[int], columns: Sequence[str]) -> NDArray[np.object_]:
    """Return the values [N, columns] of some rows: float, str, or nan where a cell is missing.

    A column is numeric when every cell that is not missing is a finite number; otherwise all its cells are
    text, and a warning names the other cells of a column where most are numbers.

    Args:
        source: The table; `~` is expanded.
        rows: Lines of the table, as `Record.row`, in the order wanted.
        columns: Their names in the table.

    Raises:
        ManifestError: The table is a folder per class, or lacks a column.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        raise ManifestError(
            f"{path} is a folder per class, which has no columns. Expected a CSV or TSV table with the "
            f"columns {', '.join(columns)}."
        )
    table = read_table(path)
    require_columns(table, columns, setting="model.columns")
    cells_of = dict(zip(table.lines, table.rows, strict=True))
    import numpy as np  # noqa: PLC0415 - `--help` and a configuration error answer without it

    found = np.empty((len(rows), len(columns)), object)
    for position, column in enumerate(columns):
        found[:, position] = _parse_column(
            column, [table.with_decimal_point(cells_of[row][column]) for row in rows]
        )
    return found


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", strip_invisible(text))


def _normalise(text: str) -> str:
    """Return the form in which labels are compared, in which `1.0` is `1`."""
    text = _compose(text)
    return text.partition(".")[0] if re.fullmatch(r"[+-]?[0-9]+\.0+", text) else text


def parse_number(text: str) -> float:
    """Return a finite number, or nan for any other text, such as `1_200` or `0x10`, which Python reads.

    >>> [parse_number(text) for text in ("-1.5", "1e3", "1_200", "inf", "")]
    [-1.5, 1000.0, nan, nan, nan]
    """
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


def parse_limit(text: str) -> float:
    """Return a finite number, also where only its limit is given, as in de-identified ages; else nan.

    >>> [parse_limit(text) for text in ("63", "89+", ">89", "<= 5", "5-9")]
    [63.0, 89.0, 89.0, 5.0, nan]
    """
    limit = _LIMIT.fullmatch(text)
    return parse_number(limit[1] or limit[2] if limit else text)


def _sort_names(names: set[str]) -> tuple[str, ...]:
    if not all(map(is_number, names)):
        return tuple(sorted(names))
    return tuple(sorted(names, key=lambda name: (float(name), name)))


def _index_label(text: str, names: Sequence[str]) -> int | str:
    if text in names:
        return names.index(text)
    if is_missing(text):
        return "label missing"
    same = [name for name in names if name.casefold() == text.casefold()]
    return f"label {text!r} is not a class{f' (but {same[0]!r} is)' if same else ''}"


def _bin_cell(cell: str, edges: Sequence[float]) -> int | str:
    value = parse_number(cell)
    return describe_unusable_number(cell) if math.isnan(value) else bisect_right(edges, value)


def describe_unusable_number(cell: str) -> str:
    """Return why a cell is no number, as a reason to leave its row out."""
    if is_missing(cell):
        return "label missing"
    has_comma = re.fullmatch(r"[+-]?\d+,\d+", cell)
    return f"label {cell!r} is not a number{' (write a decimal point)' if has_comma else ''}"


def _check_names(names: Sequence[str], edges: Sequence[float]) -> None:
    if "" in names:
        raise ManifestError("data.classes has an empty name. Each class needs a name of its own.")
    duplicates = [name for name, count in Counter(names).items() if count > 1]
    if duplicates:
        raise ManifestError(
            f"data.classes has {list_some(map(repr, duplicates))} twice. Each class needs a name of its own."
        )
    if len(names) == 1:
        raise ManifestError(
            f"data.classes has the single class {names[0]!r}. Classification needs two or more."
        )
    if not edges:
        return
    if len(names) != len(edges) + 1:
        raise ManifestError(
            f"The {len(edges)} edges in data.label_bins make {len(edges) + 1} classes, but data.classes has "
            f"{len(names)}. "
            "Name one class more than there are edges, for instance label_bins=[5] classes=[minor,severe]."
        )
    if any(not low < high for low, high in pairwise(edges)):
        raise ManifestError(f"data.label_bins must rise, but is {list(edges)}.")


def _check_found(found: Sequence[int | str], names: Sequence[str], *, allow_absent: bool) -> None:
    counts = Counter(found)
    reasons = [f"{label} ({count})" for label, count in counts.most_common() if isinstance(label, str)]
    left_out = f" Rows left out: {list_some(reasons)}." if reasons else ""
    if len(names) < 2:
        only = f"the single class {names[0]!r}" if names else "no label"
        raise ManifestError(
            f"The label column has {only}. Classification needs two classes or more.{left_out}"
        )
    empty = [name for index, name in enumerate(names) if not counts[index]]
    if empty and not (allow_absent and len(empty) < len(names)):
        raise ManifestError(
            f"No row is of class {list_some(map(repr, empty))}.{left_out} Check the class names in "
            "data.classes: they must be spelt as in the table. In YAML a name such as true, null or 1.10 "
            "needs quotes."
        )


def _parse_column(column: str, cells: Sequence[str]) -> list[float | str]:
    """Return a column's cells as numbers if all can be, else as text.

    >>> _parse_column("age", ["1.5", "n/a"]), _parse_column("grade", ["1.5", "high", ""])
    ([1.5, nan], ['1.5', 'high', nan])
    """
    known = [cell for cell in cells if not is_missing(cell)]
    not_numbers = [cell for cell in known if not is_number(cell)]
    if 0 < len(not_numbers) < len(known) / 2:
        are_limits = not any(math.isnan(parse_limit(cell)) for cell in not_numbers)
        log.warning(
            "The column %s %s: %s.",
            column,
            "has limits in place of numbers; a model takes the limit itself"
            if are_limits
            else "is read as text, since not all its cells are numbers",
            list_some(map(repr, dict.fromkeys(not_numbers))),
        )
    convert = str if not_numbers else float
    return [math.nan if is_missing(cell) else convert(cell) for cell in cells]
