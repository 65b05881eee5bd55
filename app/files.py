"""Read and write the small files of Voxlift, and check paths before work whose results go there."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from voxlift.app.errors import SettingsError, refuse_problems, shorten
from voxlift.data_pipelines.files import atomic_write

NAMES = "surrogateescape"
"""How the bytes of a file's name that are not UTF-8 are kept in text, as Python keeps them in paths."""

MAX_BYTES = 2**28
"""Of a table or a JSON file that is read at once."""


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
    """Write a text file in UTF-8, atomically; names of files that are not UTF-8 keep their bytes."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode(errors=NAMES))


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a run folder.

    Raises:
        SettingsError: The file does not exist, is too large, or is not a JSON object.
    """
    _refuse_unreadable(path)
    try:
        text = path.read_text(encoding="utf-8", errors=NAMES)
        value = json.loads(text, object_hook=partial(Content, path=path))
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: expected JSON; {shorten(error)}.") from error
    if not isinstance(value, dict):
        raise SettingsError(f"{path}: expected a JSON object; received a {type(value).__name__}.")
    return value


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, atomically; the columns are all keys, in the order of their first row."""
    write_text(path, format_rows(rows, list(dict.fromkeys(key for row in rows for key in row))))


def format_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as the text of a CSV file with these columns."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file of a run folder, all values as text.

    Raises:
        SettingsError: The file does not exist, is too large, or is no table.
    """
    _refuse_unreadable(path)
    with path.open(encoding="utf-8", errors=NAMES, newline="") as file:
        reader = csv.DictReader(file)
        try:
            rows = list(reader)
        except csv.Error as error:
            raise SettingsError(f"{path}: line {reader.line_num}: {error}.") from error
    if any(None in row for row in rows):
        raise SettingsError(
            f"{path}: expected {len(reader.fieldnames or ())} values in each row; one has more."
        )
    return [Content(row, path=path) for row in rows]


class Content(dict[str, Any]):
    """An object or a row of a file of a run folder; a key that it lacks is an error that names the file.

    Attributes:
        path: The file.
    """

    def __init__(self, values: Mapping[str, Any], *, path: Path) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str) -> Any:  # noqa: ANN401 - it never returns
        """Raise an error that names the file and the key."""
        raise SettingsError(f"{self.path}: expected {key}, which it lacks. Restore the file from a copy.")

    def __reduce__(self) -> tuple[Any, ...]:
        """Return a plain dictionary for another process."""
        return dict, (dict(self),)


def _refuse_unreadable(path: Path) -> None:
    """Raise an error if a file of a run folder does not exist, or reading it would not end soon."""
    if not path.exists():
        raise SettingsError(f"{path}: expected a file of a finished run; it does not exist.")
    if not path.is_file():
        raise SettingsError(f"{path}: expected a file of a finished run; it is a folder or a device.")
    if path.stat().st_size > MAX_BYTES:
        raise SettingsError(
            f"{path}: expected a file of a finished run; it has {path.stat().st_size / 1e6:.0f} MB, and more "
            f"than {MAX_BYTES / 1e6:.0f} are not read."
        )


def refuse_unwritable(path: Path, *, setting: str) -> None:
    """Check that a file or folder can be made at `path`; see `find_path_problems`.

    Raises:
        SettingsError: It cannot.
    """
    refuse_problems(find_path_problems(path, setting=setting))


def find_path_problems(path: Path, *, setting: str) -> list[str]:
    """Return a sentence if no file or folder can be made at `path`; the folders above it need not exist.

    Args:
        path: The file or folder.
        setting: The setting that names it, for the message.
    """
    above = next((one for one in path.absolute().parents if one.exists()), Path("/"))
    if not above.is_dir():
        return [f"{setting}: expected a folder above it; {above} is a file. Choose another path."]
    if not os.access(above, os.W_OK | os.X_OK):
        return [f"{setting}: you cannot write into {above}. Choose another path, or change its permissions."]
    return []


def find_output_file_problems(output: str, *, ending: str, overwrite: bool) -> list[str]:
    """Return a sentence if `output` cannot become a file.

    Args:
        output: As the user named it.
        ending: Of its name, with the dot, in lower case.
        overwrite: Whether an existing file may be replaced.
    """
    path = Path(output).expanduser()
    if path.suffix.lower() != ending:
        return [f"output={output}: expected a name that ends in {ending}."]
    if not path.parent.is_dir():
        return [f"output={output}: there is no folder {path.parent}; make it first."]
    if path.exists() and not overwrite:
        return [f"output={output}: the file exists; choose another name, or set overwrite=true."]
    return find_path_problems(path, setting=f"output={output}")


DESCRIPTION_KEYS = frozenset({"runs", "input"})  # of the JSON file beside each table of predictions


def find_description_problems(output: str) -> list[str]:
    """Return a sentence if the JSON file beside a table or an array would replace one that is not its own.

    Args:
        output: The table or array, as the user named it.
    """
    path = Path(output).expanduser()
    description = path.with_suffix(".json")
    tables = [description.with_suffix(ending) for ending in (".csv", ".npz")]
    other = next((table for table in tables if table.exists() and table.suffix != path.suffix), None)
    if not os.path.lexists(description) or (other is None and _is_description(description)):
        return []
    owner = f"it belongs to {other.name}" if other is not None else "it is not that of a prediction"
    return [f"output={output}: {description} exists, and {owner}; it would be replaced. Choose another name."]


def _is_description(path: Path) -> bool:
    try:
        return read_json(path).keys() >= DESCRIPTION_KEYS
    except (SettingsError, OSError):
        return False


def find_output_folder_problems(output: str) -> list[str]:
    """Return a sentence if `output` cannot become a new folder or is not an empty one."""
    folder = Path(output).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        return [f"output={folder}: expected a new or empty folder; choose another."]
    return find_path_problems(folder, setting=f"output={output}")


def find_run_problems(run: object) -> list[str]:
    """Return a sentence if no run is named."""
    return ["run: expected the folder of a finished run; set run=RUN_DIR."] if run is None else []
