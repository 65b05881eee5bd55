"""Turns the text of a label column into class indices, and says what was left out.

A label is missing where its cell is empty or says `n/a`, `NA`, `NaN`, `#N/A`, `NULL` or `<NA>`, unless a
class has that very name. Accents that look alike are alike, however they are encoded. Whole numbers written
as `1.0` (what a spreadsheet makes of an integer column with gaps) mean the same as `1`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from voxlift.data_pipelines.tables.reader import ManifestError, list_some

_MISSING = frozenset({"", "n/a", "na", "nan", "#n/a", "null", "<na>"})


def is_missing(cell: str) -> bool:
    """Returns whether a table's cell stands for "no value"."""
    return cell.casefold() in _MISSING


def is_number(text: str) -> bool:
    """Returns whether a label is written as a number."""
    return not math.isnan(_number(text))


def index_labels(
    cells: Sequence[str], *, classes: Sequence[str] = (), label_bins: Sequence[float] = ()
) -> tuple[tuple[int | str, ...], tuple[str, ...]]:
    """Returns for each cell its class index, or why it has none, and the class names in index order.

    Args:
        cells: The label column's text.
        classes: Class names in index order; by default all labels found, sorted (numbers by value).
        label_bins: Rising edges that cut a numeric column: class 0 is below the first, the last from the
            last edge on.

    Raises:
        ManifestError: The classes or edges contradict each other, fewer than two classes are left, or one is
            empty.
    """
    names = tuple(_plain(str(name)) for name in classes)
    _check_names(names, label_bins)
    if label_bins:
        found: list[int | str] = [_bin(cell, label_bins) for cell in cells]
    else:
        texts = [_plain(cell) for cell in cells]
        names = names or _sorted_names({text for text in texts if not is_missing(text)})
        found = [_find(text, names) for text in texts]
    _check_found(found, names)
    return tuple(found), names


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    return text.partition(".")[0] if re.fullmatch(r"[+-]?\d+\.0+", text) else text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _sorted_names(names: set[str]) -> tuple[str, ...]:
    if any(math.isnan(_number(name)) for name in names):
        return tuple(sorted(names))
    return tuple(sorted(names, key=lambda name: (float(name), name)))


def _find(text: str, names: Sequence[str]) -> int | str:
    if text in names:
        return names.index(text)
    if is_missing(text):
        return "label missing"
    alike = [name for name in names if name.casefold() == text.casefold()]
    return f"label {text!r} is not a class{f' (but {alike[0]!r} is)' if alike else ''}"


def _bin(cell: str, edges: Sequence[float]) -> int | str:
    if is_missing(cell):
        return "label missing"
    value = _number(cell)
    if math.isnan(value):
        is_comma = re.fullmatch(r"[+-]?\d+,\d+", cell)
        return f"label {cell!r} is not a number{' (write a decimal point)' if is_comma else ''}"
    return bisect_right(edges, value)


def _check_names(names: Sequence[str], edges: Sequence[float]) -> None:
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise ManifestError(
            f"data.classes names {list_some(map(repr, doubled))} twice. Each class needs its own name."
        )
    if len(names) == 1:
        raise ManifestError(
            f"data.classes holds the single class {names[0]!r}. Classification needs two or more."
        )
    if not edges:
        return
    if len(names) != len(edges) + 1:
        raise ManifestError(
            f"{len(edges)} label_bins cut {len(edges) + 1} classes, but data.classes holds {len(names)}. "
            "Name one class more than there are bins, for instance label_bins=[5] classes=[minor,severe]."
        )
    if any(not low < high for low, high in pairwise(edges)):
        raise ManifestError(f"data.label_bins must rise, but are {list(edges)}.")


def _check_found(found: Sequence[int | str], names: Sequence[str]) -> None:
    counts = Counter(found)
    seen = [f"{label} ({count})" for label, count in counts.most_common() if isinstance(label, str)]
    left_out = f" Left out: {list_some(seen)}." if seen else ""
    if len(names) < 2:
        only = f"the single class {names[0]!r}" if names else "no label"
        raise ManifestError(f"The labels hold {only}. Classification needs two classes or more.{left_out}")
    empty = [name for index, name in enumerate(names) if not counts[index]]
    if empty:
        raise ManifestError(
            f"No row is of class {list_some(map(repr, empty))}.{left_out} Check the class names in "
            "data.classes: they are spelt as in the table."
        )
