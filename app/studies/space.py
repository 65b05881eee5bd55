"""Nested settings as dotted keys: the values of a study over settings, the space of a search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from voxlift.app.config import SettingsError

RANGE_KEYS = {"low", "high", "log", "step"}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; whole ones where both ends are whole.

    Attributes:
        low: The lower end, included.
        high: The upper end, included.
        log: Whether orders of magnitude count alike.
        step: Distance of the values that may be drawn; None for any.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: object) -> bool:
        """Whether a value lies in the range."""
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choices:
    """One of several values."""

    values: tuple[Any, ...]

    def holds(self, value: object) -> bool:
        """Whether a value is one of them."""
        return value in self.values


def read_values(vary: Mapping[str, Any], *, where: str) -> dict[str, tuple[Any, ...]]:
    """Return the values of every setting that is varied, by its dotted key; a null leaves a setting out.

    >>> read_values({"model": {"head": ["pool", "flatten"], "init": None}}, where="study.vary")
    {'model.head': ('pool', 'flatten')}

    Raises:
        SettingsError: a setting without a list of values.
    """
    problems, found = [], {}
    for key, value in _leaves(vary):
        if not isinstance(value, list) or not value:
            problems.append(f"{where}.{key}: expected a list of values; received {value}.")
            continue
        found[key] = tuple(value)
    if problems:
        raise SettingsError("\n".join(problems))
    return found


def read_space(space: Mapping[str, Any], *, where: str) -> dict[str, Range | Choices]:
    """Return the range or choices of every setting that is searched, by its dotted key; null leaves it out.

    Raises:
        SettingsError: listing what is neither a range nor a list of choices.
    """
    problems: list[str] = []
    found: dict[str, Range | Choices] = {}
    for key, value in _leaves(space):
        if isinstance(value, list) and value:
            found[key] = Choices(tuple(value))
            continue
        problem = _range_problem(value)
        if problem:
            problems.append(f"{where}.{key}: {problem}")
        else:
            found[key] = Range(**value)
    if problems:
        raise SettingsError("\n".join(problems))
    return found


def _range_problem(value: object) -> str:
    expected = "expected a list of choices, or {low:,high:} with log: or step:"
    if not isinstance(value, Mapping) or not {"low", "high"} <= set(value):
        return f"{expected}; received {value}."
    ends = (value["low"], value["high"])
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends):
        return f"{expected}, both of them numbers; received {value}."
    if not ends[0] < ends[1]:
        return f"expected low below high; received {value}."
    if value.get("log") and (ends[0] <= 0 or value.get("step")):
        return f"a logarithmic range starts above 0 and has no step; received {value}."
    return ""


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values: a list, a range, or whatever else stands where one of them should."""
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and not set(value) & RANGE_KEYS:
            yield from _leaves(value, f"{name}.")
        elif value is not None:
            yield name, value
