"""Columns of subjects: how their values form groups, and Table 1, all of them by split."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from voxlift.app.evaluation.scores import Integers

MISSING_ROW = "missing"
Value: TypeAlias = float | str
"""A cell: a number, a text, or nan where it is missing."""
MISSING = "(missing)"
OTHER = "(other)"
MAX_GROUPS = 12
MAX_CODED = 5  # whole numbers with at most so many different values are codes of categories


@dataclass(frozen=True)
class TableOneRow:
    """One row of the table.

    Attributes:
        variable: Name of the column.
        level: A category; empty for a number.
        statistic: `n (%)`, `mean (sd)`, `median [quartiles]` or `missing`.
        cells: Split to text.
        differences: Split to its standardised difference from the first split, in the first row of a
            variable; nan where it is undefined.
    """

    variable: str
    level: str
    statistic: str
    cells: Mapping[str, str]
    differences: Mapping[str, float]


def describe_columns(
    columns: Mapping[str, Sequence[Value]], groups: Sequence[str], order: Sequence[str]
) -> list[TableOneRow]:
    """Return the rows of the table.

    Numbers have mean and standard deviation (n - 1), and median and quartiles; categories have counts, and
    percentages of the subjects whose cell is not missing. Missing cells have a row where there are any.

    Args:
        columns: Name to one value per subject; nan where missing.
        groups: The split of each subject.
        order: The splits; the others are compared with the first.
    """
    rows: list[TableOneRow] = []
    for name, values in columns.items():
        split = {
            group: [value for value, own in zip(values, groups, strict=True) if own == group]
            for group in order
        }
        rows += (
            _describe_numbers(name, split) if is_number_column(values) else _describe_categories(name, split)
        )
        missing = {group: sum(not is_known(value) for value in own) for group, own in split.items()}
        if any(missing.values()):
            cells = {group: _format_share(count, len(split[group])) for group, count in missing.items()}
            rows.append(TableOneRow(name, "", MISSING_ROW, cells, {}))
    return rows


def standardised_difference(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the difference of two means in units of the pooled standard deviation, second minus first.

    nan where a group has fewer than two numbers; 0 where all numbers are equal.

    Source:
        Austin 2009, doi:10.1002/sim.3697.
    """
    one, other = np.asarray(first, float), np.asarray(second, float)
    if min(len(one), len(other)) < 2:
        return math.nan
    spread = math.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2)
    difference = float(other.mean() - one.mean())
    return difference / spread if spread else math.nan if difference else 0.0


def categorical_difference(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the standardised difference of two distributions over the same categories, 0 or more.

    Args:
        first: Counts per category.
        second: Counts of the same categories.

    Source:
        Yang and Dalton 2012, SAS Global Forum, paper 335-2012.
    """
    one, other = np.asarray(first, float), np.asarray(second, float)
    if not one.sum() or not other.sum():
        return math.nan
    p, q = one / one.sum(), other / other.sum()
    difference = (q - p)[1:]
    if not difference.any():
        return 0.0
    pooled = (_covariance(p) + _covariance(q)) / 2
    if np.linalg.matrix_rank(pooled) < len(pooled):
        return math.nan  # such as two groups that share no category
    return float(math.sqrt(difference @ np.linalg.solve(pooled, difference)))


def table_rows(rows: Sequence[TableOneRow]) -> list[dict[str, str]]:
    """Return the rows as text for a CSV file: variable, level, statistic, splits, differences."""
    return [
        {
            "variable": row.variable,
            "level": row.level,
            "statistic": row.statistic,
            **row.cells,
            **{f"smd {group}": format_difference(value) for group, value in row.differences.items()},
        }
        for row in rows
    ]


def format_difference(value: float) -> str:
    """Return a standardised difference with two decimals; empty where it is undefined."""
    return f"{value:.2f}" if math.isfinite(value) else ""


def _covariance(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the covariance of the indicators of all categories but the first."""
    own = shares[1:]
    covariance: NDArray[np.float64] = np.diag(own) - np.outer(own, own)
    return covariance


def _describe_numbers(name: str, split: Mapping[str, Sequence[Value]]) -> list[TableOneRow]:
    known = {group: [float(value) for value in own if is_known(value)] for group, own in split.items()}
    first = next(iter(known))
    differences = {
        group: standardised_difference(known[first], own) for group, own in known.items() if group != first
    }
    means = {group: _format_mean(own) for group, own in known.items()}
    medians = {group: _format_median(own) for group, own in known.items()}
    return [
        TableOneRow(name, "", "mean (sd)", means, differences),
        TableOneRow(name, "", "median [quartiles]", medians, {}),
    ]


def _describe_categories(name: str, split: Mapping[str, Sequence[Value]]) -> list[TableOneRow]:
    every = [value for own in split.values() for value in own]
    grouping = cut_groups(name, every)
    texts = iter(grouping.names[code] for code in grouping.codes)
    counts = {group: Counter(next(texts) for _ in own) for group, own in split.items()}
    levels = [level for level in grouping.names if level != MISSING]
    first = next(iter(counts))
    differences = {
        group: categorical_difference(
            [counts[first][level] for level in levels], [own[level] for level in levels]
        )
        for group, own in counts.items()
        if group != first
    }
    known = {group: sum(own[level] for level in levels) for group, own in counts.items()}
    return [
        TableOneRow(
            name,
            level,
            "n (%)",
            {group: _format_share(own[level], known[group]) for group, own in counts.items()},
            differences if index == 0 else {},
        )
        for index, level in enumerate(levels)
    ]


def _format_share(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.1f} %)" if total else "0"


def _format_mean(numbers: Sequence[float]) -> str:
    if not numbers:
        return ""
    sd = f" ({_format_number(float(np.std(numbers, ddof=1)))})" if len(numbers) > 1 else ""
    return f"{_format_number(float(np.mean(numbers)))}{sd}"


def _format_median(numbers: Sequence[float]) -> str:
    if not numbers:
        return ""
    low, middle, high = (_format_number(float(q)) for q in np.quantile(numbers, [0.25, 0.5, 0.75]))
    return f"{middle} [{low}, {high}]"


def _format_number(value: float) -> str:
    """Return a number with four digits, or as a whole number where it has more before the point."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


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
    return tuple(_round_cut(float(cut), numbers) for cut in np.unique(cuts) if cut > min(numbers))


def _round_cut(cut: float, numbers: Sequence[float]) -> float:
    """Return the number with the fewest decimals that parts the same numbers.

    >>> _round_cut(34.3333, [33.0, 34.0, 35.0]), _round_cut(0.527, [0.512, 0.538])
    (35.0, 0.52)
    """
    low, high = max(n for n in numbers if n < cut), min(n for n in numbers if n >= cut)
    for decimals in range(7):
        scale = 10.0**decimals
        rounded = round((math.floor(low * scale) + 1) / scale, decimals)
        if low < rounded <= high:
            return rounded
    return cut


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
