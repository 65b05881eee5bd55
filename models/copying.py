"""Copy a network with its weights for inputs with other channels, or with other last layers."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from voxlift.models.lifting.inflate import adapt_channels
from voxlift.models.lifting.types import Array, Layer, Model, Shape, Tensor
from voxlift.models.loading import first_line


def copy_network(
    network: Model, images: Tensor, *, entry: Tensor = None, replaced: Mapping[str, Layer] | None = None
) -> Model:
    """Return a copy of a network that reads other images, with weights of its own.

    Numbers that a layer holds for each channel become their mean.

    Args:
        network: Functional or sequential, with one input and one output.
        images: The symbolic input of the copy.
        entry: What the first layers read: a function of the images; None: the images.
        replaced: New layers by the names of those that they replace.

    Raises:
        ValueError: Its layers do not accept these images.
    """
    first, new = images if entry is None else entry, replaced or {}

    def copy(layer: Layer) -> Layer:
        if not isinstance(layer, keras.Layer):
            return layer  # an operation, such as a sum written with +
        if layer.name in new:
            return new[layer.name]
        copied = type(layer).from_config(_average_channels(layer))
        copied.name = layer.name  # blocks of keras_hub's MobileNet append to the name in their configuration
        return copied

    def call(layer: Layer, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever a layer takes
        args = keras.tree.map_structure(lambda value: first if value is images else value, args)
        is_new = any(layer is other for other in new.values())
        return layer(*args) if is_new else layer(*args, **kwargs)  # a softmax is called with a mask

    functional = keras.Model(network.inputs[0], network.outputs[0], name=network.name)
    try:
        return keras.models.clone_model(
            functional, input_tensors=images, clone_function=copy, call_function=call
        )
    except (ValueError, TypeError) as error:
        reason = first_line(error)
        raise ValueError(f"its layers do not accept {tuple(images.shape[1:])}: {reason}") from error


def copy_weights(network: Model, copy: Model, *, but: frozenset[str] = frozenset()) -> None:
    """Give a copy the weights of its network.

    Where a first layer reads another number of channels, its kernel is summed over them and shared equally.

    Args:
        network: The network.
        copy: As `copy_network` returns it.
        but: Names of layers that keep their own weights.

    Raises:
        ValueError: A weight has another shape for another reason.
    """
    for layer in network.layers:
        if layer.weights and layer.name not in but:
            receiver = copy.get_layer(layer.name)
            pairs = zip(layer.get_weights(), receiver.weights, strict=True)
            receiver.set_weights([_adapt(layer, weight, tuple(new.shape)) for weight, new in pairs])


def _average_channels(layer: Layer) -> dict[str, Any]:
    config: dict[str, Any] = layer.get_config()
    if isinstance(layer, layers.Rescaling):
        return config | {key: float(np.mean(config[key])) for key in ("scale", "offset")}
    if isinstance(layer, layers.Normalization) and config.get("mean") is not None:
        return config | {key: float(np.mean(config[key])) for key in ("mean", "variance")}
    return config


def _adapt(layer: Layer, weight: Array, shape: Shape) -> Array:
    if tuple(weight.shape) == shape:
        return weight
    axis = len(shape) - 2
    is_same_but_for_channels = weight.shape[:axis] == shape[:axis] and weight.shape[-1] == shape[-1]
    if not isinstance(layer, layers.Dense) and axis > 0 and is_same_but_for_channels:
        return adapt_channels(weight, int(shape[axis] or 1), axis=axis)
    if isinstance(layer, layers.Normalization) and len(shape) == 1:
        return np.full(int(shape[0] or 1), weight.mean(), weight.dtype)
    raise ValueError(
        f"the weights of the layer {layer.name} have the shape {tuple(weight.shape)}; expected {shape}."
    )
