"""Errors that the user can fix in the data: a table, a file, a scan; and lists for their messages."""

from __future__ import annotations

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
