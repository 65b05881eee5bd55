"""A network computed layer by layer in a precision of choice, whatever precision it was built for."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from voxlift.models.lifting.edits import Edit, Edits
from voxlift.models.lifting.graph import Call, Graph, is_network, read_graph
from voxlift.models.lifting.inflate import Array
from voxlift.models.lifting.kinds import Layer, Model, Value

POOLS = (keras.layers.MaxPooling3D, keras.layers.AveragePooling3D)
Watch = Callable[[Layer, list[Array]], list[Array] | None]
Prepare = Callable[[Layer, list[Any]], None]


def ignore(_operation: Layer, _outputs: list[Array]) -> None:
    """Watch nothing."""


def trace(
    model: Model,
    arrays: list[Array],
    *,
    precision: str,
    watch: Watch = ignore,
    prepare: Prepare | None = None,
    edits: Edits | None = None,
) -> list[Array]:
    """Return a network's outputs at inference, every layer computed in one precision.

    The network stays as it is; a tensor is dropped behind its last reader.

    Args:
        model: Functional or Sequential model, of rank 2 or 3.
        arrays: One array per input, in the order of `model.inputs`.
        precision: "float32" or "float64"; integers stay integers.
        watch: Called with each layer or raw operation and its outputs, in the order of computation; those of
            nested networks too. What it returns stands in the place of the outputs.
        prepare: Called with each layer and the tensors that it is about to read.
        edits: Layers to leave out, and activations to take away.

    Returns:
        One array per output of the network, in the precision.
    """
    tensors = [
        keras.ops.convert_to_tensor(array, precision if "float" in tensor.dtype else tensor.dtype)
        for array, tensor in zip(arrays, model.inputs, strict=True)
    ]
    tracer = _Tracer(precision, watch, prepare, edits or Edits())
    return as_arrays(tracer.run(read_graph(model), tensors))


def as_arrays(tensors: list[Any]) -> list[Array]:
    """Return tensors as numpy arrays."""
    return [np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in tensors]


@dataclass(frozen=True)
class _Tracer:
    """One walk over a graph with numbers in it; its fields are the arguments of `trace`."""

    precision: str
    watch: Watch
    prepare: Prepare | None
    edits: Edits = field(default_factory=Edits)

    def run(self, graph: Graph, tensors: list[Any]) -> list[Any]:
        """Return the outputs of a network, or of one inside it, for one tensor per input."""
        values = dict(zip(map(id, graph.inputs), tensors, strict=True))
        readers = Counter(id(tensor) for call in graph.calls for tensor in call.inputs)
        readers.update(map(id, graph.outputs))
        for call in graph.calls:
            values.update(zip(map(id, call.outputs), self._outputs(call, values), strict=True))
            readers.subtract(map(id, call.inputs))
            for tensor in call.inputs:
                if not readers[id(tensor)]:
                    values.pop(id(tensor), None)
        return [values[id(tensor)] for tensor in graph.outputs]

    def _outputs(self, call: Call, values: dict[int, Any]) -> list[Any]:
        inputs = [values[id(tensor)] for tensor in call.inputs]
        if is_network(call.operation):
            return self.run(read_graph(call.operation), inputs)
        if self.prepare is not None:
            self.prepare(call.operation, inputs)
        args, kwargs = keras.tree.map_structure(
            lambda value: values.get(id(value), value), (call.args, dict(call.kwargs))
        )
        outputs = keras.tree.flatten(self._apply(call.operation, args, kwargs))
        instead = self.watch(call.operation, as_arrays(outputs))
        return outputs if instead is None else [keras.ops.convert_to_tensor(array) for array in instead]

    def _apply(self, operation: Layer, args: Value, kwargs: dict[str, Any]) -> Value:
        edit = self.edits.by_layer.get(id(operation), Edit())
        if edit.is_dropped:
            return args[0]
        if not isinstance(operation, keras.layers.Layer):
            return operation(*args, **kwargs)
        if "training" in kwargs:
            kwargs["training"] = False
        with _computing_in(operation, self.precision), _linear(operation, edit):
            if self.precision == "float64" and isinstance(operation, POOLS):
                return _pool(operation, *args)
            return operation(*args, **kwargs)


class _ComputePolicy(keras.DTypePolicy):
    """Computes in one precision, whatever that of the weights: another `variable_dtype` has them cast."""

    @property
    def variable_dtype(self) -> str:
        return "none"


@contextmanager
def _computing_in(layer: Layer, precision: str) -> Iterator[None]:
    """Let a layer, and those inside it, compute in a precision; its weights are cast where they are read."""
    parts = list(layer._flatten_layers())  # noqa: SLF001  # Keras shows a layer's own layers nowhere else
    policies = [part.dtype_policy for part in parts]
    try:
        for part in parts:
            part.dtype_policy = _ComputePolicy(precision)
        yield
    finally:
        for part, policy in zip(parts, policies, strict=True):
            part.dtype_policy = policy


@contextmanager
def _linear(layer: Layer, edit: Edit) -> Iterator[None]:
    """Take a layer's activation away where the edit says so."""
    if edit.config.get("activation") != "linear":
        yield
        return
    activation = layer.activation
    try:
        layer.activation = keras.activations.linear
        yield
    finally:
        layer.activation = activation


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
