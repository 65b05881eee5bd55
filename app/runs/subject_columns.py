"""Columns of the subjects of a run: the cells of its table and facts of its files, read as values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from voxlift.app.config import SettingsError
from voxlift.app.evaluation.table_one import Value
from voxlift.data_pipelines.errors import closest_name
from voxlift.data_pipelines.tables.reader import is_missing, is_number

OWN_COLUMNS = ("subject", "image", "split", "row")
AXES = ("depth", "height", "width")
HEADER_FACTS = (
    *(f"header.{name}" for name in ("spacing", "shape", "axcodes", "format", "folder")),
    *(f"header.{name}.{axis}" for name in ("spacing", "shape") for axis in AXES),
)
OPEN_ENDED = re.compile(r"([0-9.]+) ?\+|[<>≤≥]=? ?([0-9.]+)")
USUAL_NAMES = {
    "age": ("age", "agey", "ageyears", "ageatscan", "ageatvisit", "patientage"),
    "sex": ("sex", "gender", "patientsex"),
    "site": ("site", "siteid", "center", "centre", "hospital", "institution", "scanner", "scannerid"),
}


@dataclass(frozen=True)
class SubjectColumns:
    """The columns of a table of volumes.

    Attributes:
        rows: Image cell of a volume (see `Record.item`) to its cells by column, as text.
        names: Of the columns that the user's table has, in its order.
    """

    rows: Mapping[str, Mapping[str, str]]
    names: tuple[str, ...]

    def read(self, column: str, items: Iterable[str], *, setting: str = "evaluation.by") -> list[Value]:
        """Return the value of each volume: float where all cells are numbers, else text; nan where missing.

        Args:
            column: A column of the table, or a fact of the files, `header.spacing` and so on.
            items: Image cells of the volumes.
            setting: Names the column, for the message.

        Raises:
            SettingsError: There is no such column.
        """
        known = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        if column not in known:
            close = closest_name(column, known)
            hint = f" Did you mean {close}?" if close else ""
            raise SettingsError(
                f"{setting}: there is no column {column}.{hint} The columns are {', '.join(known) or 'none'}."
            )
        return parse_cells([self.rows.get(item, {}).get(column, "") for item in items])


def collect_columns(rows: Sequence[Mapping[str, str]]) -> SubjectColumns:
    """Return rows of `subjects.csv` as columns; spacing and shape also as one text of three numbers."""
    collected = {}
    for row in rows:
        own = {name: cell for name, cell in row.items() if name not in OWN_COLUMNS}
        for name in ("spacing", "shape"):
            sides = [own.get(f"header.{name}.{axis}", "") for axis in AXES]
            own |= {f"header.{name}": "x".join(sides)} if all(sides) else {}
        collected[row["image"]] = own
    names = [name for name in (rows[0] if rows else ()) if name not in OWN_COLUMNS]
    return SubjectColumns(collected, tuple(name for name in names if not name.startswith("header.")))


def find_usual_columns(names: Iterable[str], kinds: Sequence[str] = tuple(USUAL_NAMES)) -> list[str]:
    """Return the columns of age, sex and site among the names, by their usual spellings.

    >>> find_usual_columns(["participant_id", "Gender", "age_at_scan", "label"])
    ['age_at_scan', 'Gender']

    Args:
        names: Of all columns.
        kinds: Some keys of `USUAL_NAMES`.
    """
    plain = {name: "".join(filter(str.isalpha, name.casefold())) for name in names}
    return [name for kind in kinds for name, text in plain.items() if text in USUAL_NAMES[kind]]


def parse_cells(cells: Sequence[str]) -> list[Value]:
    """Return cells as numbers if all that are not missing can be, else as text; nan where missing.

    Open ends, as in ages that are not given exactly (`89+`, `>89`), count as the number that they begin with.

    >>> parse_cells(["1.5", "n/a", "89+"]), parse_cells(["1.5", "high"])
    ([1.5, nan, 89.0], ['1.5', 'high'])
    """
    known = [cell for cell in cells if not is_missing(cell)]
    closed = {cell: _close_end(cell) for cell in known} if any(map(is_number, known)) else {}
    is_numeric = all(is_number(closed.get(cell, cell)) for cell in known)
    return [math.nan if is_missing(cell) else float(closed[cell]) if is_numeric else cell for cell in cells]


def _close_end(cell: str) -> str:
    """Return an open-ended number without the sign that opens it; any other cell as it is."""
    found = OPEN_ENDED.fullmatch(cell)
    return (found[1] or found[2]) if found else cell


def saved_name(column: str) -> str:
    """Return the name of a table's column in `subjects.csv`, beside the columns that are not the table's."""
    return f"table.{column}" if column in OWN_COLUMNS or column.startswith("header.") else column
