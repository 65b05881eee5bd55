"""Networks of `keras.applications`, untrained or with trained weights, and saved 2D networks."""

import inspect
import itertools
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from voxlift.models.backend import Tensor
from voxlift.models.baselines.small import Shape, add_head
from voxlift.models.copying import copy_network, copy_weights
from voxlift.models.heads import strip_output_layer
from voxlift.models.hub import find_preset, read_preset_scaling
from voxlift.models.lifting.types import Model
from voxlift.models.loading import build_zoo_network, first_line, read_network
from voxlift.models.slice_model import unwrap_slices

WHITE = 255.0  # the largest value of a photograph, as keras.applications take them


def build_application(name: str, input_shape: Shape, classes: int, *, dropout: float = 0.0) -> keras.Model:
    """Return an untrained network of `keras.applications` for slices [B, H, W, C], with float32 logits.

    Args:
        name: One of `application_names`.
        input_shape: Height, width and channels of a slice.
        classes: Units of the head.
        dropout: Rate before the head.

    Raises:
        ValueError: The network does not accept slices of this shape.
    """
    build = getattr(keras.applications, name)
    settings: dict[str, Any] = {"include_top": False, "input_shape": input_shape, "weights": None}
    if "include_preprocessing" in inspect.signature(build).parameters:
        settings["include_preprocessing"] = False  # it scales photographs
    try:
        features = build(**settings)
    except ValueError as error:
        raise ValueError(
            f"keras.applications.{name} does not accept slices of {input_shape}: {error}"
        ) from error
    return keras.Model(features.input, add_head(features.outputs[0], classes, dropout), name=features.name)


def build_zoo_baseline(name: str, input_shape: Shape, classes: int, *, dropout: float = 0.0) -> keras.Model:
    """Return an untrained network of another library for slices [B, H, W, C], with float32 logits.

    Args:
        name: Library and class, such as `kimm:RegNetY002`.
        input_shape: Height, width and channels of a slice.
        classes: Units of the head. It reads the class token of a vision transformer.
        dropout: Rate before the head.

    Raises:
        ValueError: The library is not installed, it has no such network, or the network does not accept
            slices of this shape.
    """
    settings = {"include_top": False, "include_preprocessing": False, "weights": None}
    features = build_zoo_network(name, input_shape=input_shape, **settings)
    x = features.outputs[0]
    x = x[:, 0] if len(x.shape) == 3 else x
    return keras.Model(features.input, add_head(x, classes, dropout), name=features.name)


def build_trained_application(
    name: str,
    input_shape: Shape,
    classes: int,
    *,
    weights: str | Path,
    value_range: tuple[float, float] = (0.0, 1.0),
    is_clipped: bool = False,
    dropout: float = 0.0,
) -> keras.Model:
    """Return a network of `keras.applications` with trained weights and a new head of float32 logits.

    The first layers scale the slices as the photographs were scaled in training, by the mean over red, green
    and blue. With another number of channels than three, the kernel of the first convolution is summed over
    the colours and shared equally, so that equal channels give what a grey photograph gave.

    Args:
        name: One of `application_names`.
        input_shape: Height, width and channels of a slice.
        classes: Units of the head.
        weights: `imagenet` (from Keras's cache, else a download), or a weights file of the network without
            its top.
        value_range: The values of the slices that become black and white.
        is_clipped: Whether values outside of the range are clipped to it.
        dropout: Rate before the head.

    Raises:
        ValueError: The weights are not available or do not fit, or the slices are too small.
    """
    features = _load_application(name, (*input_shape[:2], 3), weights)
    images = keras.Input(input_shape, name=features.inputs[0].name)
    scaled = scale_input(images, read_scaling(name), value_range=value_range, is_clipped=is_clipped)
    return _adapt_trained(features, images, scaled, classes, dropout)


def build_trained_zoo_baseline(
    name: str,
    input_shape: Shape,
    classes: int,
    *,
    weights: str | Path | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    is_clipped: bool = False,
    dropout: float = 0.0,
) -> keras.Model:
    """Return a network of another library with trained weights and a new head of float32 logits.

    Scaling and stem are those of `build_trained_application`.

    Args:
        name: Library and class, such as `kimm:RegNetY002`, or `keras_hub:` and the folder of a preset.
        input_shape: Height, width and channels of a slice.
        classes: Units of the head.
        weights: `imagenet` (of kimm: from Keras's cache, else a download), or a weights file of the network
            without its top; None: those of the preset.
        value_range: The values of the slices that become black and white.
        is_clipped: Whether values outside of the range are clipped to it.
        dropout: Rate before the head.

    Raises:
        ValueError: The weights are not available or do not fit, or the slices are too small.
    """
    settings = {"include_top": False, "include_preprocessing": False, "weights": weights}
    features = build_zoo_network(name, input_shape=(*input_shape[:2], 3), **settings)
    images = keras.Input(input_shape, name=features.inputs[0].name)
    scaling = read_zoo_scaling(name, (*input_shape[:2], 3))
    scaled = scale_input(images, scaling, value_range=value_range, is_clipped=is_clipped)
    return _adapt_trained(features, images, scaled, classes, dropout)


def _adapt_trained(
    features: Model, images: Tensor, scaled: Tensor, classes: int, dropout: float
) -> keras.Model:
    """Return the network from other images to logits; it reads the class token of a vision transformer."""
    adapted = copy_network(features, images, entry=scaled)
    copy_weights(features, adapted)
    x = adapted.outputs[0]
    x = x[:, 0] if len(x.shape) == 3 else x
    return keras.Model(images, add_head(x, classes, dropout), name=features.name)


def read_zoo_scaling(name: str, input_shape: Shape) -> tuple[float, float]:
    """Return what black and white photographs become before a network of another library.

    It is measured on the preprocessing layers of kimm, and read from the image converter of a preset. Where
    keras_hub states none, it is 0 and 1.

    Args:
        name: Library and class, or `keras_hub:` and the folder of a preset.
        input_shape: Height, width and three channels of an image that the network accepts.
    """
    library, _, network = name.partition(":")
    if library == "keras_hub":
        preset = find_preset(network)
        return (None if preset is None else read_preset_scaling(preset)) or (0.0, 1.0)
    whole = build_zoo_network(name, input_shape=input_shape, include_top=False, include_preprocessing=True)
    steps = itertools.takewhile(
        lambda layer: isinstance(layer, layers.Rescaling | layers.Normalization), whole.layers[1:]
    )
    photographs = np.stack([np.full((1, 1, 3), value, np.float32) for value in (0.0, WHITE)])
    for step in steps:
        photographs = keras.ops.convert_to_numpy(step(photographs))
    black, white = (float(np.mean(photograph)) for photograph in photographs)
    return black, white


def read_scaling(name: str) -> tuple[float, float]:
    """Return what black and white photographs become before a network of `keras.applications`.

    It is measured on the function that the network's own module offers, as the mean over red, green and blue.

    Args:
        name: One of `application_names`.

    >>> read_scaling("MobileNet"), read_scaling("EfficientNetB0")
    ((-1.0, 1.0), (0.0, 255.0))
    """
    build = inspect.unwrap(getattr(keras.applications, name))
    preprocess = sys.modules[build.__module__].preprocess_input
    black, white = (
        float(np.mean(preprocess(np.full((1, 1, 1, 3), value, np.float32)))) for value in (0.0, WHITE)
    )
    return black, white


def scale_input(
    images: Tensor, scaling: tuple[float, float], *, value_range: tuple[float, float], is_clipped: bool
) -> Tensor:
    """Return images with `value_range` mapped linearly to the two values of `scaling`, in float32.

    Args:
        images: Symbolic images.
        scaling: See `read_scaling`.
        value_range: The values that become black and white.
        is_clipped: Whether values outside are clipped.
    """
    (low, high), (black, white) = value_range, scaling
    if is_clipped:  # to 0..1 first, where a ReLU with a maximum clips
        factor = 1 / (high - low)
        images = layers.Rescaling(factor, -low * factor, dtype="float32", name="input_range")(images)
        images = layers.ReLU(max_value=1.0, dtype="float32", name="input_clip")(images)
        low, high = 0.0, 1.0
    factor = (white - black) / (high - low)
    return layers.Rescaling(factor, black - low * factor, dtype="float32", name="input_scaling")(images)


def _load_application(name: str, input_shape: Shape, weights: str | Path) -> Model:
    build: Callable[..., Model] = getattr(keras.applications, name)
    is_file = str(weights) != "imagenet"
    source = str(Path(weights).expanduser()) if is_file else "imagenet"
    if is_file and not Path(source).is_file():
        raise ValueError(f"expected imagenet or a weights file; {source} does not exist.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the size of photographs
            return build(include_top=False, input_shape=input_shape, weights=source)
    except Exception as error:  # Keras raises a bare Exception if a download fails
        url = re.search(r"URL fetch failure on (\S+):", str(error))
        if url or (isinstance(error, OSError) and not is_file):
            file = f"file {url[1].rpartition('/')[2]}" if url else "file of its weights without the top"
            cache = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
            raise ValueError(
                f"the ImageNet weights of {name} are not on this computer and could not be downloaded. Put "
                f"the {file} into {cache}, or give its path."
            ) from error
        raise ValueError(
            f"keras.applications.{name} without its top, for images of {input_shape}, does not accept "
            f"{'the file ' + source if is_file else 'the ImageNet weights'}: {first_line(error)}"
        ) from error


def load_baseline(path: Path, input_shape: Shape, classes: int) -> keras.Model:
    """Return the 2D network of a saved model, or of a finished run, as it was saved.

    Args:
        path: A `.keras` file, or a folder that holds a `model.keras`.
        input_shape: Height, width and channels of a slice.
        classes: Number of classes of the data.

    Raises:
        ValueError: There is no network, it cannot be loaded, or its input or number of classes differs.
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
    if tuple(strip_output_layer(network).output_shape) != (None, classes):
        raise ValueError(
            f"{file} has an output of shape {tuple(network.output_shape)}, but the data has {classes} "
            "classes. Train it on the same classes, or give it a new head."
        )
    return network
