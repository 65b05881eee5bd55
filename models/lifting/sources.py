"""A 2D network by name or by path, with its weights."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from voxlift.models.existing import application_names, first_line, read_network
from voxlift.models.lifting.errors import LiftError, Problem
from voxlift.models.lifting.kinds import Model


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
        name_or_path: A name of `keras.applications`, or a `.keras` file.
        weights: "imagenet", a weights file, or None for random ones (a `.keras` file brings its own).
        input_shape: (height, width, channels) for a network of `keras.applications`.
        include_top: Whether its classifying head is kept.
        classes: Classes of that head, where the weights are not "imagenet".

    Raises:
        LiftError: An unknown name (close ones are listed), a file that is not there or cannot be read,
            weights that cannot be had or do not fit.
    """
    text = str(name_or_path)
    if text in application_names():
        return _load_application(text, weights, _arguments(input_shape, classes, include_top=include_top))
    path = Path(text).expanduser()
    if path.suffix == ".keras" or path.exists():
        return _load_file(path, weights)
    close = difflib.get_close_matches(text, application_names(), n=4, cutoff=0.4)
    hint = f"Did you mean {', '.join(close)}?" if close else f"There are {', '.join(application_names())}."
    raise _fault(text, f"no network of keras.applications and no .keras file is called {text!r}.", hint)


def _arguments(
    input_shape: tuple[int | None, int | None, int] | None, classes: int | None, *, include_top: bool
) -> dict[str, Any]:
    given = {"input_shape": input_shape, "classes": classes}
    return {"include_top": include_top, **{key: value for key, value in given.items() if value is not None}}


def _load_application(name: str, weights: str | Path | None, arguments: dict[str, Any]) -> Model:
    maker: Callable[..., Model] = getattr(keras.applications, name)
    source = str(weights) if weights is not None else None
    if source not in (None, "imagenet") and not Path(str(source)).expanduser().is_file():
        raise _fault(
            name, f"there is no weights file {source!r}.", "Give an existing file, 'imagenet', or no weights."
        )
    try:
        return maker(weights=source, **arguments)
    except Exception as error:  # Keras raises bare Exception where a download fails
        if source == "imagenet" and _is_download(error):
            raise _fault(
                name,
                "its ImageNet weights are not on this computer and could not be downloaded.",
                "Put the file into ~/.keras/models, or give the path of a weights file as weights=PATH.",
            ) from error
        raise _fault(name, f"keras.applications.{name} says: {first_line(error)}") from error


def _load_file(path: Path, weights: str | Path | None) -> Model:
    if not path.is_file():
        raise _fault(str(path), "there is no such file.", "Give the path of a .keras file.")
    try:
        model = read_network(path)
        if weights is not None:
            model.load_weights(Path(weights).expanduser())
    except (ValueError, TypeError, OSError) as error:
        raise _fault(str(path), first_line(error)) from error
    return model


def _is_download(error: Exception) -> bool:
    return isinstance(error, OSError) or "URL fetch failure" in str(error)


def _fault(network: str, reason: str, way_out: str = "") -> LiftError:
    return LiftError(network, [Problem(network, "network", "", reason, way_out)])
