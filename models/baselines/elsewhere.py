"""Baselines that exist already: a network of `keras.applications` with a new head, or a saved network."""

import inspect
from collections.abc import Callable
from pathlib import Path

import keras

from voxlift.models.aggregation import unwrap_slices
from voxlift.models.baselines.parts import Shape, add_head
from voxlift.models.existing import read_network


def build_application(
    name: str, input_shape: Shape, classes: int, *, weights: str | Path | None = None, dropout: float = 0.0
) -> keras.Model:
    """Return a network of `keras.applications` for slices [B, H, W, C], with a new head of float32 logits.

    Args:
        name: One of `application_names`.
        input_shape: Height, width and channels of a slice.
        classes: Units of the head.
        weights: None, `imagenet` (a download), or a weights file of the network without its top.
        dropout: Rate before the head.

    Raises:
        ValueError: The network refuses slices of this shape, or these weights.
    """
    # The name is a member of `application_names`, so this reads a function and nothing else.
    build = getattr(keras.applications, name)
    try:
        features = build(
            include_top=False,
            weights=str(weights) if weights is not None else None,
            input_shape=input_shape,
            **_without_preprocessing(build),
        )
    except ValueError as error:
        raise ValueError(f"keras.applications.{name} refuses slices of {input_shape}: {error}") from error
    return keras.Model(features.input, add_head(features.outputs[0], classes, dropout), name=features.name)


def _without_preprocessing(build: Callable[..., keras.Model]) -> dict[str, bool]:
    """Return the arguments that leave out the scaling for photographs, where a network lets us."""
    parameters = inspect.signature(build).parameters
    return {"include_preprocessing": False} if "include_preprocessing" in parameters else {}


def load_baseline(path: Path, input_shape: Shape, classes: int) -> keras.Model:
    """Return the 2D network of a saved model, or of a finished run, as it was saved.

    Args:
        path: A `.keras` file, or a folder that holds a `model.keras`.
        input_shape: Height, width and channels of a slice.
        classes: Number of classes of the data.

    Raises:
        ValueError: There is no network, it cannot be loaded, or it takes other slices or gives other classes.
    """
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"{file} does not exist. Name a .keras file, or the folder of a finished run that holds "
            "model.keras."
        )
    network = unwrap_slices(read_network(file))
    expected, received = (None, *input_shape), tuple(network.input_shape)
    if len(received) != 4:
        raise ValueError(f"{file} takes inputs of shape {received}; a baseline takes slices [B, H, W, C].")
    if any(None not in pair and pair[0] != pair[1] for pair in zip(expected, received, strict=True)):
        raise ValueError(
            f"{file} takes slices of shape {received[1:]}, but the data has {input_shape}. "
            "Set preprocess.shape and the image columns to those of that network."
        )
    if tuple(network.output_shape) != (None, classes):
        raise ValueError(
            f"{file} gives an output of shape {tuple(network.output_shape)}, but the data has {classes} "
            "classes. Train it on the same classes, or give it a new head."
        )
    return network
