"""The largest number that still fits, found with few trials, each of which may fail."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Largest:
    """What a search for the largest number found.

    Attributes:
        fits: The largest number tried that fits; 0 where not even the first does.
        fails: The smallest number tried that does not; None where none is known.
        tried: Every number tried with its answer, in order; None for no answer, which ends the search.
    """

    fits: int
    fails: int | None
    tried: tuple[tuple[int, bool | None], ...]

    @property
    def unanswered(self) -> int | None:
        """The number whose trial gave no answer, if one did."""
        return next((number for number, answer in self.tried if answer is None), None)

    def may_fit(self, number: int) -> bool:
        """Whether a number fits, or where the search came to no end, is not known to fail."""
        is_open = self.unanswered is not None and (self.fails is None or number < self.fails)
        return number <= self.fits or is_open


def bisect_largest(
    fits: Callable[[int], bool | None], *, first: int, most: int, precision: float = 0.1
) -> Largest:
    """Return the largest number up to `most` for which `fits` says yes, doubling first and bisecting then.

    Args:
        fits: Asked once for each number; expected to say no from some number on. None (it cannot be told)
            ends the search.
        first: Where doubling starts.
        most: The largest number that is tried.
        precision: The bisection ends when the numbers that fit and fail lie within this share of the first.

    >>> bisect_largest(lambda n: n <= 37, first=4, most=1000, precision=0.0).fits
    37
    """
    low, high, number = 0, most + 1, min(first, most)
    tried: list[tuple[int, bool | None]] = []
    while high - low > max(1, precision * low):
        answer = fits(number)
        tried.append((number, answer))
        if answer is None:
            break
        low, high = (number, high) if answer else (low, number)
        is_doubling = high > most
        number = min(2 * low, most) if is_doubling and low < most else (low + high) // 2
        if low == most or number in (low, 0):
            break
    return Largest(low, high if high <= most else None, tuple(tried))
