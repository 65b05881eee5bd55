"""What follows the dense layer of a head: append it to a network, remove it, and find the dense layer."""

from collections.abc import Sequence
from typing import Any

import keras

from voxlift.models.layers.outputs import ENDINGS, CumulativeLogits, TargetScale


def append_scale(network: keras.Model, *, scale: float, offset: float) -> keras.Model:
    """Return the network with its output [B, T] brought to the unit of the target, see `TargetScale`."""
    return _append(network, TargetScale(scale, offset, name="target_scale"))


def append_cuts(network: keras.Model, cuts: Sequence[float]) -> keras.Model:
    """Return the network with its output [B, 1] turned into log-probabilities, see `CumulativeLogits`."""
    return _append(network, CumulativeLogits(cuts, name="cumulative_logits"))


def has_ending(network: keras.Model) -> bool:
    """Return whether something follows the dense layer of the network's head."""
    return isinstance(network.layers[-1], ENDINGS)


def strip_ending(network: keras.Model) -> keras.Model:
    """Return the network up to its dense layer, with shared weights; itself where nothing follows."""
    if not has_ending(network):
        return network
    return keras.Model(_inputs(network), network.layers[-1].input, name=network.name)


def head_layer(network: keras.Model) -> Any:  # noqa: ANN401 - untyped Keras
    """Return the last layer of a network that is no ending: the dense layer of its head."""
    return next(layer for layer in reversed(network.layers) if not isinstance(layer, ENDINGS))


def set_bias(network: keras.Model, values: Sequence[float]) -> None:
    """Let the outputs start from these values [T], where the head has a bias."""
    bias = getattr(head_layer(network), "bias", None)
    if bias is not None and tuple(bias.shape) == (len(values),):
        bias.assign(values)


def _append(network: keras.Model, ending: Any) -> keras.Model:  # noqa: ANN401 - untyped Keras
    if has_ending(network):
        return network
    head = network.layers[-1]
    if head.compute_dtype in {"float16", "bfloat16"}:
        head.dtype_policy = "float32"
    return keras.Model(_inputs(network), ending(network.outputs[0]), name=network.name)


def _inputs(network: keras.Model) -> Any:  # noqa: ANN401 - untyped Keras
    """Return the input of a network, in a list only where there are several, as they are then called."""
    return network.inputs[0] if len(network.inputs) == 1 else network.inputs
