"""Files that are whole or not there: written beside their place, then renamed; absent ones are told."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from voxlift.app.errors import SettingsError, refuse_problems
from voxlift.data_pipelines.atomic import atomic_write


def write_beside(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a binary file atomically.

    Args:
        path: The file to write; its folder exists.
        write: Writes to the open binary file that it is called with.

    Raises:
        OSError: Writing failed, such as on a full disk; it names `path`, and an existing file is unchanged.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        write(file)


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


def output_file_problems(output: str, *, ending: str, overwrite: bool) -> list[str]:
    """What keeps `output` from becoming a file, as a sentence; nothing where it can.

    Args:
        output: as the user named it.
        ending: of its name, with the dot, in small letters.
        overwrite: whether a file of that name may be replaced.
    """
    path = Path(output).expanduser()
    if path.suffix.lower() != ending:
        return [f"output={output}: expected a name that ends in {ending}."]
    if not path.parent.is_dir():
        return [f"output={output}: there is no folder {path.parent}; make it first."]
    if path.exists() and not overwrite:
        return [f"output={output}: the file exists; choose another, or say overwrite=true."]
    return place_problems(path, asked=f"output={output}")


def output_folder_problems(output: str) -> list[str]:
    """What keeps `output` from becoming a folder of its own, as a sentence; nothing where it can."""
    folder = Path(output).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        return [f"output={folder}: expected a new or empty folder; choose another."]
    return place_problems(folder, asked=f"output={output}")


def finished_run_problems(run: object) -> list[str]:
    """A sentence where no run is named."""
    return ["run: expected the folder of a finished run; say run=RUN_DIR."] if run is None else []
