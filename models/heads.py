"""The output layer that may follow the dense layer of a head: append it, remove it, find the dense layer."""

from collections.abc import Sequence
from typing import Any

import keras

from voxlift.models.layers.outputs import OUTPUT_LAYERS, CumulativeLogits, TargetScale


def append_scale(network: keras.Model, *, scale: float, offset: float) -> keras.Model:
    """Return the network with its output [B, T] brought to the unit of the target, see `TargetScale`."""
    return _append(network, TargetScale(scale, offset, name="target_scale"))


def append_cuts(network: keras.Model, cuts: Sequence[float]) -> keras.Model:
    """Return the network with its output [B, 1] turned into log-probabilities, see `CumulativeLogits`."""
    return _append(network, CumulativeLogits(cuts, name="cumulative_logits"))


def has_output_layer(network: keras.Model) -> bool:
    """Return whether an output layer follows the dense layer of the head."""
    return isinstance(network.layers[-1], OUTPUT_LAYERS)


def strip_output_layer(network: keras.Model) -> keras.Model:
    """Return the network up to its dense layer, with shared weights; itself where nothing follows."""
    if not has_output_layer(network):
        return network
    return keras.Model(_inputs(network), network.layers[-1].input, name=network.name)


def head_layer(network: keras.Model) -> Any:  # noqa: ANN401 - untyped Keras
    """Return the dense layer of a head: the last layer that is no output layer."""
    return next(layer for layer in reversed(network.layers) if not isinstance(layer, OUTPUT_LAYERS))


def set_bias(network: keras.Model, values: Sequence[float]) -> None:
    """Let the outputs start from these values [T], where the head has a bias."""
    bias = getattr(head_layer(network), "bias", None)
    if bias is not None and tuple(bias.shape) == (len(values),):
        bias.assign(values)


def _append(network: keras.Model, layer: Any) -> keras.Model:  # noqa: ANN401 - untyped Keras
    if has_output_layer(network):
        return network
    head = network.layers[-1]
    if head.compute_dtype in {"float16", "bfloat16"}:
        head.dtype_policy = "float32"
    return keras.Model(_inputs(network), layer(network.outputs[0]), name=network.name)


def _inputs(network: keras.Model) -> Any:  # noqa: ANN401 - untyped Keras
    """Return the input of a network, in a list only where there are several, as they are then called."""
    return network.inputs[0] if len(network.inputs) == 1 else network.inputs
