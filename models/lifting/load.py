"""Load a 2D network with its weights, by name or from a file."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from voxlift.models.lifting.errors import LiftError, Problem
from voxlift.models.lifting.types import Model
from voxlift.models.loading import (
    application_names,
    build_zoo_network,
    first_line,
    is_zoo_name,
    read_network,
)


def load_network(
    name_or_path: str | Path,
    *,
    weights: str | Path | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    include_top: bool = True,
    classes: int | None = None,
) -> Model:
    """Return a 2D network.

    Args:
        name_or_path: A name of `keras.applications`, one of another library such as `kimm:RegNetY002`, or the
            path of a `.keras` file.
        weights: "imagenet", the path of a weights file, or None for random weights (a `.keras` file contains
            its own).
        input_shape: (height, width, channels) for a network given by its name.
        include_top: Whether to keep its classifying head.
        classes: Number of classes of that head, if the weights are not "imagenet".

    Raises:
        LiftError: The name is unknown (similar names are listed), the file is missing or cannot be read, or
            the weights are not available or do not fit.
    """
    text = str(name_or_path)
    if is_zoo_name(text):
        return _load_zoo_network(text, weights, include_top, input_shape, classes)
    if text in application_names():
        options = {"input_shape": input_shape, "classes": classes}
        given = {key: value for key, value in options.items() if value is not None}
        return _load_application(text, weights, {"include_top": include_top, **given})
    path = Path(text).expanduser()
    if path.suffix == ".keras" or path.exists():
        return _load_file(path, weights)
    close = difflib.get_close_matches(text, application_names(), n=4, cutoff=0.4)
    hint = f"Did you mean {', '.join(close)}?" if close else f"Known names: {', '.join(application_names())}."
    raise _error(text, f"{text!r} is neither a network of keras.applications nor a .keras file.", hint)


def _load_application(name: str, weights: str | Path | None, options: dict[str, Any]) -> Model:
    build: Callable[..., Model] = getattr(keras.applications, name)
    source = None if weights is None else str(weights)
    if source not in (None, "imagenet") and not Path(str(source)).expanduser().is_file():
        fix = "Give the path of an existing file, 'imagenet', or no weights."
        raise _error(name, f"weights file {source!r} does not exist.", fix)
    try:
        return build(weights=source, **options)
    except Exception as error:  # Keras raises a bare Exception if a download fails
        is_download = isinstance(error, OSError) or "URL fetch failure" in str(error)
        if source == "imagenet" and is_download:
            raise _error(
                name,
                "the ImageNet weights are not on this computer and could not be downloaded.",
                "Put the file into ~/.keras/models, or give the path of a weights file as weights=PATH.",
            ) from error
        raise _error(name, f"keras.applications.{name} failed: {first_line(error)}") from error


def _load_zoo_network(
    name: str,
    weights: str | Path | None,
    include_top: bool,  # noqa: FBT001
    input_shape: tuple[int | None, int | None, int] | None,
    classes: int | None,
) -> Model:
    settings: dict[str, Any] = {
        "include_top": include_top,
        "weights": None if weights is None else str(weights),
    }
    settings |= {"input_shape": input_shape} if input_shape is not None else {}
    settings |= {"classes": classes} if classes is not None else {}
    try:
        return build_zoo_network(name, **settings)
    except ValueError as error:
        raise _error(name, str(error)) from error


def _load_file(path: Path, weights: str | Path | None) -> Model:
    if not path.is_file():
        raise _error(str(path), "the file does not exist.", "Give the path of an existing .keras file.")
    try:
        model = read_network(path)
        if weights is not None:
            model.load_weights(Path(weights).expanduser())
    except (ValueError, TypeError, OSError) as error:
        raise _error(str(path), first_line(error)) from error
    return model


def _error(network: str, reason: str, fix: str = "") -> LiftError:
    return LiftError(network, [Problem(network, "network", "", reason, fix)])
