"""Import modules of the user: those of `custom`, and that of the function in `model.builder`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from voxlift.app.errors import SettingsError
from voxlift.app.runtime.setup import import_quietly


def allow_working_folder() -> None:
    """Append the working directory to the import path, last."""
    folder = os.getcwd()  # noqa: PTH109 - the import path holds texts
    if folder not in sys.path:
        sys.path.append(folder)


def import_user_modules(names: Sequence[str]) -> None:
    """Import modules that register layers or lift rules; the working directory is importable.

    Args:
        names: Full names, as in the key `custom`.

    Raises:
        SettingsError: A module cannot be imported.
    """
    if not names:
        return
    import_quietly()  # they import Keras
    allow_working_folder()
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise SettingsError(
                f"custom={name}: the module cannot be imported: {type(error).__name__}: {error}. Expected a "
                f"module in {os.getcwd()} or an installed one."  # noqa: PTH109 - as above
            ) from error
