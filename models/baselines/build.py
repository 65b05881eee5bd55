"""`build_baseline`: the 2D network that a name, a file or a run folder stands for."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from voxlift.models.baselines.pretrained import (
    build_application,
    build_trained_application,
    build_trained_zoo_baseline,
    build_zoo_baseline,
    load_baseline,
)
from voxlift.models.baselines.small import Shape, build_cnn, build_resnet, build_tutorial
from voxlift.models.hub import find_preset
from voxlift.models.loading import application_names, find_zoo_network, is_zoo_name

BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "cnn": build_cnn,
    "resnet": build_resnet,
    "tutorial": build_tutorial,
}


def build_baseline(
    name: str,
    *,
    input_shape: Shape,
    classes: int,
    filters: Sequence[int] | None = None,
    dropout: float | None = None,
    head: str | None = None,
    activation: str = "relu",
    weights: str | Path | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    is_clipped: bool = False,
) -> keras.Model:
    """Return a 2D network from slices [B, H, W, C] to float32 logits [B, classes].

    Args:
        name: `cnn`, `resnet`, `tutorial`, a name of `keras.applications` or of another library
            (`kimm:RegNetY002`, or `keras_hub:` and the folder of a preset), a `.keras` file, or a run folder
            that holds a `model.keras`. A saved slice model gives its 2D network, as it was saved.
        input_shape: Height, width and channels of a slice.
        classes: Number of classes; two classes have two logits.
        filters: Channels per stage of `cnn` (3 to 5), `resnet` (2 to 5) or `tutorial` (2).
        dropout: Rate before the head of `cnn` and `resnet` (default 0.2) or an application (default 0).
        head: Of `cnn` and `resnet`: `pool` (global average, the default), or `flatten` (a weight for every
            position).
        activation: Of `cnn` and `resnet`.
        weights: For a name of `keras.applications` or of another library: None, `imagenet` (from Keras's
            cache, else a download), or a weights file of the network without its top. A preset has its own.
        value_range: With trained weights: the values of the slices that become black and white.
        is_clipped: With trained weights: whether values outside of the range are clipped to it.

    Raises:
        ValueError: The name is unknown, a setting does not belong to the network, or a saved network has
            another input shape or number of classes.
    """
    settings = {"filters": filters, "dropout": dropout, "head": head, "weights": weights}
    given: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
    if name in BUILDERS:
        if name == "tutorial":
            _check_settings(name, given, allowed={"filters"})
        else:
            _check_settings(name, given, allowed={"filters", "dropout", "head"})
            given["activation"] = activation
        return BUILDERS[name](input_shape=input_shape, classes=classes, **given)
    if name in application_names():
        _check_settings(name, given, allowed={"weights", "dropout"})
        if weights is None:
            return build_application(name, input_shape, classes, **given)
        given |= {"value_range": value_range, "is_clipped": is_clipped}
        return build_trained_application(name, input_shape, classes, **given)
    if is_zoo_name(name):
        _check_settings(name, given, allowed={"weights", "dropout"})
        if weights is None and find_preset(name.partition(":")[2]) is None:
            return build_zoo_baseline(name, input_shape, classes, **given)
        given |= {"value_range": value_range, "is_clipped": is_clipped}
        return build_trained_zoo_baseline(name, input_shape, classes, **given)
    path = Path(name)
    if path.suffix == ".keras" or path.is_dir():
        _check_settings(name, given, allowed=set())
        return load_baseline(path, input_shape, classes)
    raise ValueError(_unknown_name_message(name))


def _check_settings(name: str, given: dict[str, Any], *, allowed: set[str]) -> None:
    """Raise ValueError if a setting does not belong to the network."""
    surplus = sorted(set(given) - allowed)
    if surplus:
        raise ValueError(
            f"Network {name} has no setting {', '.join(surplus)}; its settings are "
            f"{', '.join(sorted(allowed)) if allowed else 'none'}. Leave "
            f"{'it' if len(surplus) == 1 else 'them'} out."
        )


def explain_unknown_baseline(name: str) -> str:
    """Return why no untrained network of a name can be built, with the known names; empty if one can.

    Args:
        name: One of `BUILDERS` or of `application_names`, or library and class such as `kimm:RegNetY002`.
    """
    if is_zoo_name(name):
        try:
            find_zoo_network(name)
        except ValueError as error:
            return str(error)
        return ""
    return "" if name in BUILDERS or name in application_names() else _unknown_name_message(name)


def _unknown_name_message(name: str) -> str:
    names = (*BUILDERS, *application_names())
    lowered = {known.lower(): known for known in names}
    matches = difflib.get_close_matches(name.lower(), lowered, n=1)
    hint = f" Did you mean {lowered[matches[0]]}?" if matches else ""
    return (
        f"Unknown baseline {name!r}.{hint} Known names are {', '.join(names)}. A .keras file or the folder "
        "of a finished run is accepted too."
    )
