"""Files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def write_beside(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that a kill or a full disk leaves the old one or the new one, never half of one.

    Args:
        path: where the file shall stand; its folder exists.
        write: gets the open binary file.

    Raises:
        OSError: naming `path`, such as on a full disk; what stood there before stands there still.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # a rename may reach the disk before what it names
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed `write_beside` left in a folder."""
    for path in folder.glob(".*.*"):
        if path.is_file():
            path.unlink(missing_ok=True)
