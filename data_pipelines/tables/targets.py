"""Decide what the label cells of a table mean: one class of several, yes/no findings, or a number.

Grades are read as classes, since only their order differs. A finding whose cell is missing is unknown (nan):
the row stays, and the other findings of it count. A row without any known label is left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.tables.reader import (
    describe_unusable_number,
    index_labels,
    is_missing,
    parse_number,
)

if TYPE_CHECKING:
    from pathlib import Path

    from voxlift.data_pipelines.tables.rows import Row, TableOptions

PRESENT = frozenset({"1", "1.0", "yes", "y", "true", "t", "present", "positive", "pos", "+"})
ABSENT = frozenset({"0", "0.0", "no", "n", "false", "f", "absent", "negative", "neg", "-"})


@dataclass(frozen=True)
class Labels:
    """The labels of some rows.

    Attributes:
        labels: Class index of each row, 0 where there are no classes; or why the row cannot be used.
        targets: Numbers of each row: a finding is 1, 0 or nan (unknown); empty for classes.
        names: Of the classes in index order, of the findings, or of the number.
    """

    labels: tuple[int | str, ...]
    targets: tuple[tuple[float, ...], ...]
    names: tuple[str, ...]


def interpret_labels(rows: Sequence[Row], source: Path, options: TableOptions) -> Labels:
    """Return what the label cells of rows mean, as `options.target` says.

    Raises:
        ManifestError: Cells contradict the target, or nothing could be learnt from them.
    """
    return INTERPRETERS[options.target](rows, source, options)


def _read_classes(rows: Sequence[Row], source: Path, options: TableOptions) -> Labels:
    labels = [row.label for row in rows]
    classes = options.classes
    if not classes and source.is_dir() and any(map(is_missing, labels)):
        classes = sorted(set(labels))  # a folder that exists is a class, even if it is named `null` or `NA`
    indices, names = index_labels(
        labels, classes=classes, label_bins=options.label_bins, allow_absent=options.allow_absent
    )
    return Labels(indices, ((),) * len(indices), names)


def _read_numbers(rows: Sequence[Row], source: Path, options: TableOptions) -> Labels:
    values = [parse_number(row.label) for row in rows]
    labels = [
        describe_unusable_number(row.label) if math.isnan(value) else 0
        for row, value in zip(rows, values, strict=True)
    ]
    if len({value for value in values if not math.isnan(value)}) < 2:
        raise ManifestError(
            f"{source}: expected a number in the column {options.label_column} for task=number, with two "
            f"values or more; received {list_some(dict.fromkeys(repr(row.label) for row in rows))}. Set "
            "data.label_column to a column of numbers, or use task=classes."
        )
    return Labels(tuple(labels), tuple((value,) for value in values), (options.label_column,))


def _read_findings(rows: Sequence[Row], source: Path, options: TableOptions) -> Labels:
    names = tuple(options.label_columns)
    targets = tuple(tuple(_read_finding(cell) for cell in row.findings) for row in rows)
    unclear = [
        f"row {row.line}: {name} {cell!r}"
        for row in rows
        for name, cell in zip(names, row.findings, strict=True)
        if not is_missing(cell) and math.isnan(_read_finding(cell))
    ]
    if unclear:
        raise ManifestError(
            f"{source}: expected 1 or 0, yes or no, true or false, or an empty cell in the columns of "
            f"data.label_columns; received {list_some(unclear)}."
        )
    known = [{row[k] for row in targets if not math.isnan(row[k])} for k in range(len(names))]
    constant = [
        f"{name} ({'always' if found == {1.0} else 'never'} present)"
        for name, found in zip(names, known, strict=True)
        if len(found) < 2
    ]
    if constant:
        raise ManifestError(
            f"{source}: expected findings that some scans have and others lack; received "
            f"{list_some(constant)}. Leave them out of data.label_columns."
        )
    labels = tuple("no finding known" if all(map(math.isnan, row)) else 0 for row in targets)
    return Labels(labels, targets, names)


def _read_finding(cell: str) -> float:
    """Return 1 or 0, or nan for any other text.

    >>> [_read_finding(cell) for cell in ("Yes", "0", "n/a")]
    [1.0, 0.0, nan]
    """
    text = cell.strip().casefold()
    return 1.0 if text in PRESENT else 0.0 if text in ABSENT else math.nan


INTERPRETERS: dict[str, Callable[[Sequence[Row], Path, TableOptions], Labels]] = {
    "classes": _read_classes,
    "findings": _read_findings,
    "number": _read_numbers,
}  # by `TableOptions.target`
