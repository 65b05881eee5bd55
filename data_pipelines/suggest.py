"""Suggest the existing name that a misspelt one was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is most like a given one, or None where none is similar.

    Letters and digits are compared, without case. A name with another first letter must be of about the same
    length, so that "image" does not suggest "age".

    >>> closest_name("lable", ["image", "label"]), closest_name("image", ["age"])
    ('label', None)

    Args:
        name: The name that does not exist.
        names: The names that exist.
    """
    wanted = _plain(name)
    plain: dict[str, str] = {}
    for known in filter(_plain, names):
        plain.setdefault(_plain(known), known)
    close = difflib.get_close_matches(wanted, plain, n=3, cutoff=0.6)
    similar = [known for known in close if known[:1] == wanted[:1] or abs(len(known) - len(wanted)) <= 1]
    similar += [known for known in plain if _is_abbreviation(known, wanted)]
    return plain[similar[0]] if similar else None


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _is_abbreviation(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return len(shorter) >= 2 and longer.startswith(shorter)
