"""Compute a network layer by layer in a chosen precision, whatever precision it was built for."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np

from voxlift.models.lifting.edits.base import Edit, Edits
from voxlift.models.lifting.errors import LiftError, Problem, UnsupportedError, foreign_code
from voxlift.models.lifting.graph import Call, Graph, is_network, read_graph
from voxlift.models.lifting.precision import compute_in
from voxlift.models.lifting.types import Array, Layer, Model, Value

POOLS = (keras.layers.MaxPooling3D, keras.layers.AveragePooling3D)

# Called with a layer and its outputs; arrays that it returns replace the outputs.
OnOutputs: TypeAlias = Callable[[Layer, list[Array]], list[Array] | None]
OnInputs: TypeAlias = Callable[[Layer, list[Any]], None]  # called with a layer and the tensors that it reads


def run_graph(
    model: Model,
    arrays: list[Array],
    *,
    precision: str,
    on_outputs: OnOutputs | None = None,
    on_inputs: OnInputs | None = None,
    edits: Edits | None = None,
    unfolded: Mapping[int, Model] | None = None,
) -> list[Array]:
    """Return a network's outputs at inference, with every layer computed in one precision.

    The network is not changed; each tensor is freed after its last use.

    Args:
        model: Functional or Sequential model, of rank 2 or 3.
        arrays: One array per input, in the order of `model.inputs`.
        precision: "float32" or "float64"; integers stay integers.
        on_outputs: Called after each layer or raw operation, also in nested networks, in the order of
            computation.
        on_inputs: Called before each layer or raw operation.
        edits: Layers to leave out, and activations to remove.
        unfolded: Networks to compute instead of layers of other libraries, by the ids of these layers.

    Returns:
        One array per output of the network, in the precision.
    """
    tensors = [
        keras.ops.convert_to_tensor(array, precision if "float" in tensor.dtype else tensor.dtype)
        for array, tensor in zip(arrays, model.inputs, strict=True)
    ]
    interpreter = _Interpreter(model.name, precision, on_outputs, on_inputs, edits or Edits(), unfolded or {})
    return _as_arrays(interpreter.run(read_graph(model), tensors))


def _as_arrays(tensors: list[Any]) -> list[Array]:
    return [np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in tensors]


@dataclass(frozen=True)
class _Interpreter:
    """The network's name, and the settings of one computation, which are the arguments of `run_graph`."""

    network: str
    precision: str
    on_outputs: OnOutputs | None
    on_inputs: OnInputs | None
    edits: Edits
    unfolded: Mapping[int, Model]

    def run(self, graph: Graph, tensors: list[Any]) -> list[Any]:
        """Return the outputs of a network or nested network for one tensor per input."""
        values = dict(zip(map(id, graph.inputs), tensors, strict=True))
        readers = Counter(id(tensor) for call in graph.calls for tensor in call.inputs)
        readers.update(map(id, graph.outputs))
        for call in graph.calls:
            values.update(zip(map(id, call.outputs), self._run_call(call, values), strict=True))
            readers.subtract(map(id, call.inputs))
            for tensor in call.inputs:
                if not readers[id(tensor)]:
                    values.pop(id(tensor), None)
        return [values[id(tensor)] for tensor in graph.outputs]

    def _run_call(self, call: Call, values: dict[int, Any]) -> list[Any]:
        inputs = [values[id(tensor)] for tensor in call.inputs]
        network = self.unfolded.get(id(call.operation), call.operation)
        if is_network(network):
            return self.run(read_graph(network), inputs)
        if self.on_inputs is not None:
            self.on_inputs(call.operation, inputs)
        args, kwargs = keras.tree.map_structure(
            lambda value: values.get(id(value), value), (call.args, dict(call.kwargs))
        )
        try:
            with foreign_code(call.operation, f"when it was computed in {self.precision}"):
                outputs = keras.tree.flatten(self._apply(call.operation, args, kwargs))
        except UnsupportedError as error:
            kind = type(call.operation).__name__
            problem = Problem(call.operation.name, kind, "", error.reason, error.fix)
            raise LiftError(self.network, [problem]) from error
        replaced = None if self.on_outputs is None else self.on_outputs(call.operation, _as_arrays(outputs))
        return outputs if replaced is None else [keras.ops.convert_to_tensor(array) for array in replaced]

    def _apply(self, operation: Layer, args: Value, kwargs: dict[str, Any]) -> Value:
        edit = self.edits.edit_of(operation)
        if edit.is_dropped:
            return args[0]
        if not isinstance(operation, keras.layers.Layer):
            return operation(*args, **kwargs)
        if "training" in kwargs:
            kwargs["training"] = False
        with compute_in(operation, self.precision), _linear_activation(operation, edit):
            if self.precision == "float64" and isinstance(operation, POOLS):
                return _pool_by_axes(operation, *args)
            return operation(*args, **kwargs)


@contextmanager
def _linear_activation(layer: Layer, edit: Edit) -> Iterator[None]:
    """Remove a layer's activation if the edit says so."""
    if edit.config.get("activation") != "linear":
        yield
        return
    activation = layer.activation
    try:
        layer.activation = keras.activations.linear
        yield
    finally:
        layer.activation = activation


def _pool_by_axes(layer: Layer, volumes: Value) -> Value:
    """Return pooled volumes [B, D, H, W, C], the plane first: TensorFlow has no 3D pool in float64."""
    pool = keras.ops.max_pool if isinstance(layer, keras.layers.MaxPooling3D) else keras.ops.average_pool
    (depth_window, *window), (depth_step, *step) = layer.pool_size, layer.strides
    batch, depth, height, width, channels = volumes.shape
    slices = keras.ops.reshape(volumes, (batch * depth, height, width, channels))
    slices = pool(slices, tuple(window), strides=tuple(step), padding=layer.padding)
    height, width = slices.shape[1:3]
    rows = keras.ops.reshape(slices, (batch, depth, height * width, channels))
    rows = pool(rows, (depth_window, 1), strides=(depth_step, 1), padding=layer.padding)
    return keras.ops.reshape(rows, (batch, -1, height, width, channels))
