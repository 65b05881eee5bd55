"""The networks of `keras.applications` and of other libraries by name, and networks in `.keras` files."""

import difflib
import functools
import importlib
import importlib.util
import inspect
import re
import warnings
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import keras

from voxlift.models import hub
from voxlift.models.archive import check_archive

ZOOS = {"kimm": "kimm.models", "keras_hub": "keras_hub.models"}  # library, and its module of networks
PACKAGES = {"keras_hub": "keras-hub"}  # the name to install, where it is another


@functools.cache
def application_names() -> tuple[str, ...]:
    """Return the names of the networks in `keras.applications`, in alphabetical order."""
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    return tuple(sorted(name for name, _ in functions if name[0].isupper()))


def is_zoo_name(name: str) -> bool:
    """Return whether a name is that of a network of another library, such as `kimm:RegNetY002`."""
    return name.partition(":")[0] in ZOOS


def find_zoo_network(name: str) -> Callable[..., keras.Model]:
    """Return the constructor of a network of another library.

    Args:
        name: Library and class, such as `kimm:RegNetY002` or `keras_hub:ResNetBackbone`, or `keras_hub:` and
            the folder of a preset.

    Raises:
        ValueError: The library is not installed, or it has no such network.
    """
    library, _, network = name.partition(":")
    preset = hub.find_preset(network) if library == "keras_hub" and network else None
    if preset is not None:
        return functools.partial(hub.build_preset, preset)
    if library == "keras_hub" and network not in hub.NAMES and importlib.util.find_spec(library):
        raise ValueError(_unknown_network_message(library, network, hub.NAMES))  # the import takes seconds
    try:
        models = importlib.import_module(ZOOS[library])
    except ImportError as error:
        raise ValueError(
            f"{name} needs the package {PACKAGES.get(library, library)}, which is not installed: "
            "pip install 'voxlift[zoo]'."
        ) from error
    names = hub.NAMES if library == "keras_hub" else dir(models)
    build: Callable[..., keras.Model] | None = getattr(models, network, None) if network in names else None
    if library == "keras_hub" and build is not None:
        return functools.partial(hub.build_hub_network, network)
    if build is None:
        raise ValueError(_unknown_network_message(library, network, names))
    return build


def _unknown_network_message(library: str, network: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(network, names, n=3)
    preset = " The weights of a preset are given as keras_hub:FOLDER, with its config.json and "
    return f"{library} has no network {network!r}. Similar names: {', '.join(close) or 'none'}." + (
        f"{preset}model.weights.h5." if library == "keras_hub" else ""
    )


def build_zoo_network(name: str, **settings: Any) -> keras.Model:  # noqa: ANN401  # as its constructor takes them
    """Return a network of another library.

    Args:
        name: Library and class, such as `kimm:RegNetY002`.
        settings: Arguments of its constructor.

    Raises:
        ValueError: The library is not installed, it has no such network, or the network refuses the
            arguments.
    """
    build = find_zoo_network(name)
    if name.startswith("kimm:") and settings.get("weights") is not None:
        return _load_kimm_network(name, build, **settings)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of networks that have no trained weights
            return build(**settings)
    except MemoryError:
        raise
    except Exception as error:  # a bare Exception where a download fails, and KeyError and OSError of files
        raise ValueError(f"{name} refuses these settings: {first_line(error)}") from error


def _load_kimm_network(
    name: str,
    build: Callable[..., keras.Model],
    *,
    weights: str | Path,
    **settings: Any,  # noqa: ANN401  # as its constructor takes them
) -> keras.Model:
    """Return a network of kimm with weights; networks of which kimm has none ignore that argument.

    Raises:
        ValueError: There are no such weights.
    """
    file = Path(weights).expanduser()
    offered = [each[0] for each in getattr(build, "available_weights", [])]
    if not file.is_file() and str(weights) not in offered:
        raise ValueError(
            f"{name} has no weights {str(weights)!r}; kimm offers {', '.join(offered) or 'none'} for it. "
            "Give a weights file of the network."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model = build(weights=None if file.is_file() else str(weights), **settings)
        if file.is_file():
            model.load_weights(file)
    except MemoryError:
        raise
    except Exception as error:  # a bare Exception where a download fails, and others of files
        raise ValueError(f"{name} does not accept the weights {weights}: {first_line(error)}") from error
    return model


def read_network(file: Path) -> keras.Model:
    """Return the network in a `.keras` file, not compiled.

    Args:
        file: Path of the file. Modules that define its custom layers must be imported before.

    Raises:
        ValueError: There is no such file, or it cannot be loaded.
    """
    if not file.is_file():
        raise ValueError(f"{file} does not exist.")
    check_archive(file)
    _import_zoos(file)
    try:
        return keras.saving.load_model(file, compile=False)
    except MemoryError:
        raise
    except Exception as error:  # whatever the content of a file makes Keras raise
        unknown = _find_unregistered(file)
        reason = f"it holds {', '.join(unknown)}, which nothing registered." if unknown else first_line(error)
        raise ValueError(
            f"{file} cannot be loaded: {reason} Save it with model.save('name.keras'), and "
            "import the modules that define its custom layers first."
        ) from error


def _find_unregistered(file: Path) -> list[str]:
    """Return the registered names (`PACKAGE>CLASS`) in a `.keras` file that Keras does not know."""
    names = dict.fromkeys(re.findall(r'"registered_name": "([^"]+>[^"]+)"', _read_config(file)))
    return [name for name in names if keras.saving.get_registered_object(name) is None]


def _read_config(file: Path) -> str:
    with zipfile.ZipFile(file) as archive:
        if "config.json" not in archive.namelist():
            return ""
        return archive.read("config.json").decode(errors="replace")


def _import_zoos(file: Path) -> None:
    """Import the libraries of networks whose layers a `.keras` file names, so that Keras knows them.

    Args:
        file: Path of the file, which is an archive.

    Raises:
        ValueError: Such a library is not installed.
    """
    text = _read_config(file)
    for library, module in ZOOS.items():
        if f'"{library}>' in text or f'"{library}.' in text:
            try:
                importlib.import_module(module)
            except ImportError as error:
                package = PACKAGES.get(library, library)
                raise ValueError(
                    f"{file} has layers of the package {package}, which is not installed: "
                    "pip install 'voxlift[zoo]'."
                ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, with the next one where it ends with a colon.

    Without a message it is the name of the error's class.
    """
    first, second = (*(line.strip() for line in str(error).splitlines() if line.strip()), "", "")[:2]
    return f"{first} {second}" if first.endswith(":") else first or type(error).__name__
