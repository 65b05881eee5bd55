"""Format numbers as text, the same in the terminal, in tables and in figures."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

MISSING = "\N{EN DASH}"
YAML_PATH = re.compile(r"""^(\s*(?:- |[\w.]+: ))(['"]?)(/[^'"\n]+)(['"]?)$""", re.MULTILINE)
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def format_value(value: object) -> str:
    """Return a metric with three decimals, a count as it is, a dash for what is missing or undefined."""
    if isinstance(value, bool) or value is None:
        return MISSING if value is None else str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.3f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else MISSING
    return str(value)


def format_signed(value: float) -> str:
    """Return a difference with its sign.

    >>> format_signed(0.0312)
    '+0.031'
    """
    text = format_value(value)
    return text if text == MISSING or text[0] == "\N{MINUS SIGN}" else f"+{text}"


def format_interval(low: object, high: object) -> str:
    """Return both ends in brackets, or nothing where one is undefined."""
    ends = [format_value(end) for end in (low, high)]
    return "" if MISSING in ends else f"[{ends[0]}, {ends[1]}]"


def interval_of(metrics: Mapping[str, object], name: str) -> tuple[float, float] | None:
    """Return the interval of a metric in a block of metrics.json; None where it is missing or undefined."""
    intervals = metrics.get("intervals")
    pair = intervals.get(name) if isinstance(intervals, Mapping) else None
    if not pair or any(not isinstance(end, int | float) or not math.isfinite(end) for end in pair):
        return None
    return float(pair[0]), float(pair[1])


def has_zero_width(metrics: Mapping[str, object], name: str) -> bool:
    """Return True where every resample gave the same value: the interval is then no measure of the error."""
    pair = interval_of(metrics, name)
    return pair is not None and pair[0] == pair[1]


def format_quantity(value: object, unit: str = "") -> str:
    """Return a quantity with three digits and a decimal prefix.

    >>> format_quantity(12_345_678), format_quantity(0.00213, "s"), format_quantity(2.5e9, "B")
    ('12.3 M', '2.13 ms', '2.5 GB')
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return MISSING if value is None or isinstance(value, float) else str(value)
    for size, prefix in PREFIXES:
        if abs(value) >= size and unit != "s":
            return f"{_format_digits(value / size)} {prefix}{unit}".rstrip()
    if unit == "s" and 0 < abs(value) < 1:
        return f"{_format_digits(value * 1000)} ms"
    return f"{_format_digits(value)} {unit}".rstrip()


def show_path(path: str | Path, folder: Path) -> str:
    """Return a path relative to the folder of a page; as it is where only the root holds both.

    >>> show_path("/lab/data/table.csv", Path("/lab/runs/first")), show_path("table.csv", Path("/lab"))
    ('../../data/table.csv', 'table.csv')
    """
    own, base = Path(path), folder.absolute()
    if not own.is_absolute() or own.parts[:2] != base.parts[:2]:
        return str(path)
    return Path(os.path.relpath(own, base)).as_posix()


def show_config(text: str, folder: Path) -> str:
    """Return a configuration as YAML text with its paths relative to the folder of a page."""
    return YAML_PATH.sub(lambda found: f"{found[1]}{found[2]}{show_path(found[3], folder)}{found[4]}", text)


def _format_digits(value: float) -> str:
    if float(value).is_integer() and abs(value) < 1000:
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
