"""What the user can mend: errors that a command tells as a sentence, with exit status 2 and no traceback.

Each says what was expected, what was received, where, and the way out. The floors below have bases of their
own, `data_pipelines.errors.DataError` and `models.lifting.LiftError`: they know nothing of this one.
"""

from __future__ import annotations

from collections.abc import Sequence


class MendableError(ValueError):
    """The base of the errors of this floor."""


class UserError(MendableError):
    """The user's input is at fault, said in a sentence or two, where no room has an error of its own."""


class SettingsError(MendableError):
    """The configuration is at fault."""


def refuse_problems(problems: Sequence[str]) -> None:
    """Tell every problem of a configuration at once.

    Raises:
        SettingsError: there is one.
    """
    if problems:
        raise SettingsError("\n".join(problems))


def install_extra(extra: str) -> str:
    """How an extra comes into the environment that Voxlift runs in, from a checkout or from a wheel.

    pip finds the installed package itself, and fetches only what the extra adds.

    >>> install_extra("search")
    "Install it into this environment with: pip install 'voxlift[search]'."
    """
    return f"Install it into this environment with: pip install 'voxlift[{extra}]'."
