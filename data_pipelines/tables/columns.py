"""Reads columns of a manifest's table as values: what is known of a volume beside its voxels."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.tables.labels import is_missing
from voxlift.data_pipelines.tables.manifest import Record
from voxlift.data_pipelines.tables.reader import ManifestError, list_some, read_table, require_columns

log = logging.getLogger("voxlift")


def read_columns(
    source: str | Path, records: Sequence[Record], columns: Sequence[str]
) -> NDArray[np.object_]:
    """Returns the cells [N, columns] of each record: float, str, or nan where nothing is said.

    A column holds numbers when every cell that says something is a finite number; otherwise all its cells are
    text, and a warning names the cells of a column where most are numbers.

    Args:
        source: The table that the records are from; `~` is expanded.
        records: Rows that are used, in the order wanted.
        columns: Their names in the table.

    Raises:
        ManifestError: The table is a folder per class, or lacks a column.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        raise ManifestError(
            f"{path} is a folder per class, which has no columns; expected a CSV or TSV table with "
            f"{', '.join(columns)}."
        )
    table = read_table(path)
    require_columns(table, columns, told_by="model.columns says")
    rows = dict(zip(table.lines, table.rows, strict=True))
    found = np.empty((len(records), len(columns)), object)
    for position, column in enumerate(columns):
        texts = [table.spell_number(rows[record.row][column]) for record in records]
        _warn_of_strays(column, texts)
        found[:, position] = _values_of(texts)
    return found


def _values_of(texts: Sequence[str]) -> list[float | str]:
    """A column's cells as numbers if they can be, else as they stand.

    >>> _values_of(["1.5", "n/a"]), _values_of(["1.5", "high", ""])
    ([1.5, nan], ['1.5', 'high', nan])
    """
    said = [text for text in texts if not is_missing(text)]
    convert = float if all(map(_is_number, said)) else str
    return [math.nan if is_missing(text) else convert(text) for text in texts]


def _warn_of_strays(column: str, texts: Sequence[str]) -> None:
    said = [text for text in texts if not is_missing(text)]
    strays = [text for text in said if not _is_number(text)]
    if 0 < len(strays) < len(said) / 2:
        log.warning(
            "The column %s is taken as words, since not all its cells are numbers: %s.",
            column,
            list_some(map(repr, dict.fromkeys(strays))),
        )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
