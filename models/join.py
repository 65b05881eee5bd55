"""Columns of a table as a second input of a network: joined to the features of the image, before the head."""

from typing import Any

import keras
from keras import layers

from voxlift.models.backend import Tensor
from voxlift.models.heads import has_output_layer
from voxlift.models.layers.columns import JoinColumns

UNITS = 32  # of the hidden layer, which lets the columns change what a feature of the image means
INPUT_NAME = "table_columns"
HIDDEN_NAME = "joined_hidden"


def join_columns(network: keras.Model, *, width: int, units: int = UNITS) -> keras.Model:
    """Return a network of an image and of columns: [B, ...] and float32 [B, width] to outputs [B, K].

    The input of the dense head, joined with the columns, goes through a hidden layer and a new head. All
    before the head is shared with the network; a bias of its head is kept.

    Args:
        network: With one input, which ends with a dense layer on features [B, F].
        width: Number of features of the columns.
        units: Of the hidden layer.

    Raises:
        ValueError: The network ends otherwise.
    """
    head = network.layers[-1]
    if has_output_layer(network) or not isinstance(head, layers.Dense) or len(head.input.shape) != 2:
        raise ValueError(
            f"{network.name}: expected a network that ends with a dense layer on features [B, F], to which "
            f"the columns are joined; it ends with {type(head).__name__}."
        )
    columns = keras.Input((width,), dtype="float32", name=INPUT_NAME)
    joined = JoinColumns(name="join_columns")([head.input, columns])
    hidden = layers.Dense(units, activation="relu", dtype="float32", name=HIDDEN_NAME)(joined)
    logits = layers.Dense(head.units, dtype="float32", name="joined_logits")
    result = keras.Model([network.inputs[0], columns], logits(hidden), name=network.name)
    if head.use_bias:
        logits.bias.assign(head.bias)
    return result


def find_join(network: keras.Model) -> Any:  # noqa: ANN401 - untyped Keras
    """Return the layer of a network that joins columns to its features; None where there is none."""
    return next((layer for layer in network.layers if isinstance(layer, JoinColumns)), None)


def takes_columns(network: keras.Model) -> bool:
    """Return whether columns are a second input of a network, or of the slice model around it."""
    return any(tensor.name.startswith(INPUT_NAME) for tensor in network.inputs[1:])


def image_features(network: keras.Model) -> Tensor:
    """Return the features of the image [B, F] to which the columns are joined."""
    return find_join(network).input[0]


def with_columns(images: Any, columns: Any) -> Any:  # noqa: ANN401 - arrays or tensors
    """Return what a network takes: images alone, or a list of images and their columns, if there are some."""
    return images if columns is None else [images, columns]
