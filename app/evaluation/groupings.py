"""Groupings: how the values of a column divide subjects, by category, at edges, or at quantiles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from voxlift.app.evaluation.scores import Integers

Value: TypeAlias = float | str
"""A cell: a number, a text, or nan where it is missing."""

MISSING = "(missing)"
OTHER = "(other)"
MAX_GROUPS = 12
MAX_CODED = 5  # whole numbers with at most so many different values are codes of categories


@dataclass(frozen=True, eq=False)
class Grouping:
    """How a column divides volumes.

    Attributes:
        column: Its name.
        names: Of the groups, in order; the group of missing cells is the last one.
        codes: [N], the group of each volume.
    """

    column: str
    names: tuple[str, ...]
    codes: Integers


def cut_groups(
    column: str, values: Sequence[Value], *, edges: Sequence[float] = (), quantiles: int = 3
) -> Grouping:
    """Return the groups of a column's values.

    Numbers are cut at the edges, or into `quantiles` groups of about equal size; a number on an edge belongs
    above it. Whole numbers with few different values are categories, as all texts are; the rarest of more
    than twelve form one group.

    Args:
        column: Its name.
        values: One per volume; nan where missing.
        edges: Where numbers are cut; empty: at quantiles.
        quantiles: Number of groups without edges.
    """
    if is_number_column(values) or (edges and not any(isinstance(value, str) for value in values)):
        numbers = [float(value) for value in values if is_known(value)]
        cuts = tuple(edges) or _find_quantiles(numbers, quantiles)
        names = _name_ranges(cuts)
        found = [_find_interval(value, cuts) if is_known(value) else len(names) for value in values]
        return _keep_present(column, [*names, MISSING], found)
    texts = [_text(value) if is_known(value) else MISSING for value in values]
    names = _name_categories(texts)
    found = [
        names.index(text) if text in names else len(names) if text != MISSING else len(names) + 1
        for text in texts
    ]
    return _keep_present(column, [*names, OTHER, MISSING], found)


def is_number_column(values: Sequence[Value]) -> bool:
    """Return whether a column holds numbers that are no codes: more than five, or not whole."""
    known = [value for value in values if is_known(value)]
    numbers = [value for value in known if not isinstance(value, str)]
    return len(numbers) == len(known) and not _are_codes(numbers)


def _keep_present(column: str, names: Sequence[str], codes: Sequence[int]) -> Grouping:
    present = sorted(set(codes))
    position = {code: index for index, code in enumerate(present)}
    kept = tuple(names[code] for code in present)
    return Grouping(column, kept, np.array([position[code] for code in codes], np.int64))


def _are_codes(numbers: Sequence[float]) -> bool:
    distinct = set(numbers)
    return len(distinct) <= MAX_CODED and all(number.is_integer() for number in distinct)


def _find_quantiles(numbers: Sequence[float], quantiles: int) -> tuple[float, ...]:
    """Return the cuts between groups of about equal size; fewer where many numbers are equal."""
    cuts = np.quantile(numbers, np.arange(1, quantiles) / quantiles) if numbers else np.empty(0)
    return tuple(float(cut) for cut in np.unique(cuts) if cut > min(numbers))


def _name_ranges(cuts: Sequence[float]) -> list[str]:
    if not cuts:
        return ["all"]
    inner = [f"{low:g} to below {high:g}" for low, high in pairwise(cuts)]
    return [f"below {cuts[0]:g}", *inner, f"{cuts[-1]:g} and above"]


def _find_interval(value: Value, cuts: Sequence[float]) -> int:
    return int(np.searchsorted(cuts, float(value), side="right"))


def _name_categories(texts: Sequence[str]) -> list[str]:
    """Return the names of the categories, sorted; of more than twelve the most frequent eleven."""
    counts = Counter(text for text in texts if text != MISSING)
    ranked = sorted(counts, key=lambda text: (-counts[text], text))
    kept = ranked if len(ranked) <= MAX_GROUPS else ranked[: MAX_GROUPS - 1]
    try:
        return sorted(kept, key=float)
    except ValueError:
        return sorted(kept)


def is_known(value: Value) -> bool:
    """Return whether a cell is not missing."""
    return isinstance(value, str) or math.isfinite(value)


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"
