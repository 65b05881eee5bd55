"""Files that are whole or not there: written beside their place, then renamed; absent ones are told."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from voxlift.app.errors import SettingsError


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


def write_text(path: Path, text: str) -> None:
    """Write `text` so that a kill leaves the old file or the new one, never half of one."""
    write_beside(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a run folder.

    Raises:
        SettingsError: the file is missing or not JSON.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: expected a file of a finished run; it does not exist.") from error
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path}: expected JSON; {error}.") from error
    return dict(value)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same keys as CSV, atomically."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file of a run folder, all values as text.

    Raises:
        SettingsError: the file does not exist.
    """
    if not path.exists():
        raise SettingsError(f"{path}: expected a file of a finished run; it does not exist.")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
