"""The networks of `keras.applications` by name, and networks in `.keras` files."""

import functools
import inspect
import zipfile
from pathlib import Path

import keras


@functools.cache
def application_names() -> tuple[str, ...]:
    """Return the names of the networks in `keras.applications`, in alphabetical order."""
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    return tuple(sorted(name for name, _ in functions if name[0].isupper()))


def read_network(file: Path) -> keras.Model:
    """Return the network in a `.keras` file, not compiled.

    Args:
        file: Path of the file. Modules that define its custom layers must be imported before.

    Raises:
        ValueError: If there is no such file, or it cannot be loaded.
    """
    if not file.is_file():
        raise ValueError(f"{file} does not exist.")
    if not zipfile.is_zipfile(file):  # Keras would report such a file as missing
        raise ValueError(f"{file} is no .keras file, or it is incomplete. Save or copy it again.")
    try:
        return keras.saving.load_model(file, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise ValueError(
            f"{file} cannot be loaded: {first_line(error)} Save it with model.save('name.keras'), and "
            "import the modules that define its custom layers first."
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message that is not empty, or the name of its class."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
