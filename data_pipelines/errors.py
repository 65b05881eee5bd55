"""Errors that the user can fix in the data: a table, a file, a scan; lists and suggestions for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataError(ValueError):
    """Base of all errors about the user's data.

    The message names what was expected, what was received, where (file, row), and how to fix it.
    """


class ManifestError(DataError):
    """A table, folder or list of files that cannot be used as it is."""


def list_some(items: Iterable[object], *, limit: int = 10) -> str:
    """Return at most `limit` items as text, and count the rest.

    >>> list_some(["a", "b", "c"], limit=2)
    'a, b and 1 more'

    Args:
        items: Anything that can be printed.
        limit: How many items are shown.
    """
    texts = [str(item) for item in items]
    shown = ", ".join(texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit} more"


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
