"""Baselines from `keras.applications`, with a new head, and from saved networks."""

import inspect
from pathlib import Path

import keras

from voxlift.models.baselines.small import Shape, add_head
from voxlift.models.loading import read_network
from voxlift.models.slice_model import unwrap_slices


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
        ValueError: If the network does not accept slices of this shape, or these weights.
    """
    build = getattr(keras.applications, name)
    settings = {"include_top": False, "input_shape": input_shape}
    settings["weights"] = str(weights) if weights is not None else None
    if "include_preprocessing" in inspect.signature(build).parameters:
        settings["include_preprocessing"] = False  # it scales photographs
    try:
        features = build(**settings)
    except ValueError as error:
        raise ValueError(
            f"keras.applications.{name} does not accept slices of {input_shape}: {error}"
        ) from error
    return keras.Model(features.input, add_head(features.outputs[0], classes, dropout), name=features.name)


def load_baseline(path: Path, input_shape: Shape, classes: int) -> keras.Model:
    """Return the 2D network of a saved model, or of a finished run, as it was saved.

    Args:
        path: A `.keras` file, or a folder that holds a `model.keras`.
        input_shape: Height, width and channels of a slice.
        classes: Number of classes of the data.

    Raises:
        ValueError: If there is no network, it cannot be loaded, or its input or number of classes differs.
    """
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"{file} does not exist. Give a .keras file, or the folder of a finished run with a model.keras."
        )
    network = unwrap_slices(read_network(file))
    expected, received = (None, *input_shape), tuple(network.input_shape)
    if len(received) != 4:
        raise ValueError(
            f"{file}: expected a network for slices [B, H, W, C]; its input shape is {received}."
        )
    if any(None not in pair and pair[0] != pair[1] for pair in zip(expected, received, strict=True)):
        raise ValueError(
            f"{file} expects slices of shape {received[1:]}, but the data has {input_shape}. "
            "Set preprocess.shape and the image columns to those of that network."
        )
    if tuple(network.output_shape) != (None, classes):
        raise ValueError(
            f"{file} has an output of shape {tuple(network.output_shape)}, but the data has {classes} "
            "classes. Train it on the same classes, or give it a new head."
        )
    return network
