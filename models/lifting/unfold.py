"""Unfold a layer of another library that holds other layers into the network of these layers.

The layer's own code is called on a symbolic tensor, so that Keras records which of its layers it calls. The
layers in the graph are those that the layer holds, with their weights. The patch embedding of a vision
transformer has weights of its own: it is unfolded if it is proved to be a convolution to tokens, to which
constants are added.
"""

from typing import Any
from unittest import mock

import keras

from voxlift.models.lifting.errors import UnsupportedError, describe_error, is_foreign
from voxlift.models.lifting.graph import Call, read_graph, walk_layers
from voxlift.models.lifting.rules.foreign import require_no_relative_positions
from voxlift.models.lifting.rules.patch_embedding import unfold_patch_embedding
from voxlift.models.lifting.types import Layer, Model, Tensor, Value

FIX = "Register your own rule: register_lift_rule(LayerClass, rule)."


def holds_layers(layer: Layer) -> bool:
    """Return whether a layer is of another library and holds other layers."""
    is_layer = isinstance(layer, keras.layers.Layer) and not isinstance(layer, keras.Model)
    # Keras has no public access to a layer's layers.
    return is_layer and is_foreign(layer) and len(list(layer._flatten_layers())) > 1  # noqa: SLF001


def unfold_layer(call: Call) -> Model:
    """Return the network of the layers that a layer holds.

    Args:
        call: The layer where it is called, on one tensor.

    Raises:
        UnsupportedError: Its code cannot be called on symbolic tensors, it acts in another way in training,
            or it has weights of its own, or a table of relative positions.
    """
    layer = call.operation
    if len(call.inputs) != 1:
        raise UnsupportedError("it reads several tensors.", FIX)
    require_no_relative_positions(layer)
    embedding = unfold_patch_embedding(call)
    if embedding is not None:
        return embedding
    try:
        network, in_training = _trace_both(call)
    except Exception as error:
        raise UnsupportedError(f"its layers cannot be listed: {describe_error(error)}", FIX) from error
    if _list_kinds(network) != _list_kinds(in_training):
        raise UnsupportedError("it calls other layers in training than at inference.", FIX)
    known = {id(weight) for each in walk_layers(network) for weight in each.weights}
    own = [weight.name for weight in layer.weights if id(weight) not in known]
    if own:
        raise UnsupportedError(f"it has weights beside those of its layers: {', '.join(own)}.", FIX)
    return network


def _trace_both(call: Call) -> tuple[Model, Model]:
    """Return the layer's network at inference and in training."""
    try:
        return _trace(call, training=None), _trace(call, training=True)
    except ValueError:
        # A Sequential that was built for another image size refuses this one, though its layers do not.
        with mock.patch.object(keras.Sequential, "__call__", _call_one_by_one):
            return _trace(call, training=None), _trace(call, training=True)


def _call_one_by_one(model: Model, inputs: Tensor, *_: Value, **settings: Value) -> Tensor:
    """Return what the layers of a Sequential return, called one after the other."""
    for layer in model.layers:
        mode = {"training": settings.get("training")} if layer._call_has_training_arg else {}  # noqa: SLF001
        inputs = layer(inputs, **mode)
    return inputs


def _trace(call: Call, *, training: bool | None) -> Model:
    layer, tensor = call.operation, call.inputs[0]
    image = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name="input")
    settings: dict[str, Any] = {}
    if layer._call_has_training_arg:  # noqa: SLF001  # as Keras passes it
        settings["training"] = training
    return keras.Model(image, layer.call(image, **settings), name=layer.name)


def _list_kinds(network: Model) -> list[type]:
    return [type(each.operation) for each in read_graph(network).calls]
