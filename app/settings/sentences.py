"""What a check says of one setting: nothing, or a sentence with what was expected and received."""

from __future__ import annotations


def choice_problem(key: str, value: object, allowed: tuple[str, ...]) -> list[str]:
    """One sentence when `value` is not among `allowed`, else nothing.

    >>> choice_problem("precision", "half", ("auto", "float32"))
    ['precision: expected one of auto, float32; received half.']
    """
    if value in allowed:
        return []
    return [f"{key}: expected one of {', '.join(allowed)}; received {value}."]


def count_problem(key: str, value: int | None) -> list[str]:
    """One sentence when a number of things is given and below 1, else nothing."""
    return [] if value is None or value >= 1 else [f"{key}: expected at least 1; received {value}."]


def range_problem(key: str, value: float, low: float, high: float) -> list[str]:
    """One sentence when `value` lies outside [low, high], else nothing."""
    return [] if low <= value <= high else [f"{key}: expected {low:g} to {high:g}; received {value:g}."]
