"""A network computed layer by layer in a precision of choice, whatever precision it was built for."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from models.lifting.graph import Graph, is_network, read_graph
from models.lifting.inflate import Array
from models.lifting.kinds import Layer, Model, Value

POOLS = (keras.layers.MaxPooling3D, keras.layers.AveragePooling3D)
Watch = Callable[[Layer, list[Array]], None]


def trace(model: Model, arrays: list[Array], *, precision: str, watch: Watch) -> list[Array]:
    """Return a network's outputs at inference, every layer computed in one precision.

    A layer at a time is made again with the same weights, so that the network stays as it is and the memory
    is that of one layer; a tensor is dropped behind its last reader.

    Args:
        model: Functional or Sequential model, of rank 2 or 3.
        arrays: One array per input, in the order of `model.inputs`.
        precision: "float32" or "float64"; integers stay integers.
        watch: Called with each layer or raw operation and its outputs, in the order of computation; those of
            nested networks too.
    """
    tensors = [
        keras.ops.convert_to_tensor(array, precision if "float" in tensor.dtype else tensor.dtype)
        for array, tensor in zip(arrays, model.inputs, strict=True)
    ]
    return _as_arrays(_run(read_graph(model), tensors, precision, watch))


def _run(graph: Graph, tensors: list[Any], precision: str, watch: Watch) -> list[Any]:
    values = dict(zip(map(id, graph.inputs), tensors, strict=True))
    readers = Counter(id(tensor) for call in graph.calls for tensor in call.inputs)
    readers.update(map(id, graph.outputs))
    for call in graph.calls:
        if is_network(call.operation):
            inputs = [values[id(tensor)] for tensor in call.inputs]
            outputs = _run(read_graph(call.operation), inputs, precision, watch)
        else:
            args, kwargs = keras.tree.map_structure(
                lambda value: values.get(id(value), value), (call.args, dict(call.kwargs))
            )
            outputs = keras.tree.flatten(_apply(call.operation, args, kwargs, precision))
            watch(call.operation, _as_arrays(outputs))
        values.update(zip(map(id, call.outputs), outputs, strict=True))
        readers.subtract(map(id, call.inputs))
        for tensor in call.inputs:
            if not readers[id(tensor)]:
                values.pop(id(tensor), None)
    return [values[id(tensor)] for tensor in graph.outputs]


def _apply(operation: Layer, args: Value, kwargs: dict[str, Any], precision: str) -> Value:
    if not isinstance(operation, keras.layers.Layer):
        return operation(*args, **kwargs)
    if "training" in kwargs:
        kwargs["training"] = False
    twin = _in_precision(operation, precision)
    if precision == "float64" and isinstance(twin, POOLS):
        return _pool(twin, *args)
    return twin(*args, **kwargs)


def _in_precision(layer: Layer, precision: str) -> Layer:
    config = dict(layer.get_config())
    # Initial values are overwritten: drawing them would take most of the time.
    changes = {key: "zeros" for key in config if key.endswith("_initializer")} | {"dtype": precision}
    twin = type(layer).from_config({key: changes.get(key, value) for key, value in config.items()})
    if layer.weights:
        twin.build_from_config(layer.get_build_config())
        twin.set_weights(layer.get_weights())
    if isinstance(twin, keras.layers.Normalization) and layer.weights:
        twin.finalize_state()
    return twin


def _pool(layer: Layer, volumes: Value) -> Value:
    """Return pooled volumes [B, D, H, W, C]: by axes, since TensorFlow has no float64 for 3D."""
    pool = keras.ops.max_pool if isinstance(layer, keras.layers.MaxPooling3D) else keras.ops.average_pool
    (depth_window, *window), (depth_step, *step) = layer.pool_size, layer.strides
    batch, depth, height, width, channels = volumes.shape
    slices = keras.ops.reshape(volumes, (batch * depth, height, width, channels))
    slices = pool(slices, tuple(window), strides=tuple(step), padding=layer.padding)
    height, width = slices.shape[1:3]
    rows = keras.ops.reshape(slices, (batch, depth, height * width, channels))
    rows = pool(rows, (depth_window, 1), strides=(depth_step, 1), padding=layer.padding)
    return keras.ops.reshape(rows, (batch, -1, height, width, channels))


def _as_arrays(tensors: list[Any]) -> list[Array]:
    return [np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in tensors]
