"""Adapt a saved 3D network to other volumes and classes."""

import keras
from keras import layers

from voxlift.models.copying import copy_network, copy_weights
from voxlift.models.lifting.types import Layer, Model


def adapt_volume_network(
    network: Model, *, input_shape: tuple[int, int, int, int], classes: int
) -> tuple[Model, bool]:
    """Return a network of volumes [B, D, H, W, C] to logits [B, classes], with the weights of a saved one.

    The kernel of the first convolution is summed over its channels and shared equally where the volumes have
    another number of them; a head for another number of classes starts anew; a softmax or sigmoid at the end
    is removed.

    Args:
        network: Functional or sequential, with one input and one output.
        input_shape: Depth, height, width and channels of the volumes.
        classes: Number of classes.

    Returns:
        The network, and whether its head is new.

    Raises:
        ValueError: What does not fit, and what was expected.
    """
    inputs, outputs = getattr(network, "inputs", None) or [], getattr(network, "outputs", None) or []
    received = [[tuple(tensor.shape) for tensor in tensors] for tensors in (inputs, outputs)]
    if [[len(shape) for shape in shapes] for shapes in received] != [[5], [2]]:
        raise ValueError(
            "expected a functional or sequential network from one volume [B, D, H, W, C] to one output "
            f"[B, classes]; received the inputs {received[0]} and the outputs {received[1]}."
        )
    head = _build_head(network, classes)
    has_new_head = outputs[0].shape[-1] != classes
    copy = copy_network(network, keras.Input(input_shape, name=inputs[0].name), replaced=head)
    copy_weights(network, copy, but=frozenset(head if has_new_head else ()))
    return copy, has_new_head


def _build_head(network: Model, classes: int) -> dict[str, Layer]:
    """Return new last layers by the names of those that they replace.

    Raises:
        ValueError: The network has another number of classes, and no dense layer at its end.
    """
    replaced: dict[str, Layer] = {}
    *before, last = network.layers
    is_probability = isinstance(last, layers.Softmax) or _squashes(last)
    if is_probability and not isinstance(last, layers.Dense):
        replaced[last.name] = layers.Identity(name=last.name, dtype="float32")
        last = before[-1]
    if isinstance(last, layers.Dense):
        linear = {"activation": "linear"} if _squashes(last) else {}
        replaced[last.name] = layers.Dense.from_config({**last.get_config(), **linear, "units": classes})
    elif network.output_shape[-1] != classes:
        raise ValueError(
            f"it has {network.output_shape[-1]} outputs for {classes} classes, and {last.name}, its last "
            "layer, is not dense, so that no other head can be made."
        )
    return replaced


def _squashes(layer: Layer) -> bool:
    return getattr(getattr(layer, "activation", None), "__name__", "") in {"softmax", "sigmoid"}
