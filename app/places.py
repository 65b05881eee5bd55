"""Whether something can be made at a place, asked before the work whose results shall go there."""

from __future__ import annotations

import os
from pathlib import Path

from voxlift.app.errors import refuse_problems


def place_problems(path: Path, *, asked: str) -> list[str]:
    """What keeps a file or folder from being made, as at most one sentence; the folders above it may be new.

    Args:
        path: of the file or folder.
        asked: the setting that names it, for the message.
    """
    above = next((one for one in path.absolute().parents if one.exists()), Path("/"))
    if not above.is_dir():
        return [f"{asked}: {above} is a file, so nothing can be made below it; choose another place."]
    if not os.access(above, os.W_OK | os.X_OK):
        return [f"{asked}: {above} may not be written to by you; choose another place, or its permissions."]
    return []


def refuse_unwritable(path: Path, *, asked: str) -> None:
    """Pass when something can be made at `path`, see `place_problems`.

    Raises:
        SettingsError: it cannot.
    """
    refuse_problems(place_problems(path, asked=asked))
