"""Errors that the user can fix: a command prints their message without a traceback and exits with status 2.

A message says what was expected, what was received, where, and what to do. The packages below have bases of
their own, `data_pipelines.errors.DataError` and `models.lifting.LiftError`; they do not import this module.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_SHOWN = 1000  # characters of another error's message


class FixableError(ValueError):
    """Base of all errors of `app` whose cause the user can fix."""


class UserError(FixableError):
    """Unusable input, or a lack of memory or disk space, where no more specific class exists."""


class SettingsError(FixableError):
    """Invalid configuration, or a path in it that cannot be used."""


def refuse_problems(problems: Sequence[str]) -> None:
    """Raise one error that lists all problems, if there are any.

    Args:
        problems: One sentence for each.

    Raises:
        SettingsError: There is at least one problem.
    """
    if problems:
        raise SettingsError("\n".join(problems))


def shorten(error: BaseException) -> str:
    """Return an error's message, cut where it repeats a long value of a damaged file."""
    text = str(error)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} ..."


def install_extra(extra: str) -> str:
    """Return a sentence with the pip command that installs an extra, from a checkout as from a wheel.

    pip finds the installed package itself and downloads only what the extra adds.

    >>> install_extra("search")
    "Install it into this environment with: pip install 'voxlift[search]'."
    """
    return f"Install it into this environment with: pip install 'voxlift[{extra}]'."
