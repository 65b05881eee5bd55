"""The graph of a Keras network as plain values: which operation is called on which tensors."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from voxlift.models.layers.slice_attention import FrozenNetwork
from voxlift.models.lifting.errors import LiftError, Problem
from voxlift.models.lifting.types import Layer, Model, Tensor, Value

SUBCLASSED = (
    "a subclassed model has no graph that can be read.",
    "Write it with the Functional API (the same layers, called on keras.Input).",
)


@dataclass(frozen=True)
class Call:
    """One call of one operation; a shared layer has several calls.

    Args:
        operation: The Keras layer, nested model or raw operation.
        args: Positional arguments of the call, with symbolic tensors.
        kwargs: Keyword arguments of the call.
        inputs: All symbolic tensors among the arguments, in order.
        outputs: The symbolic tensors that the call returned.
    """

    operation: Layer
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


@dataclass(frozen=True)
class Graph:
    """The inputs, the calls in topological order, and the outputs of a network."""

    inputs: tuple[Any, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Any, ...]

    def consumers(self) -> dict[int, list[Call]]:
        """Return the calls that read each tensor, by the tensor's id."""
        readers: dict[int, list[Call]] = defaultdict(list)
        for call in self.calls:
            for tensor in call.inputs:
                readers[id(tensor)].append(call)
        return readers


def read_graph(model: Model) -> Graph:
    """Return the graph of a Functional or a built Sequential model.

    Args:
        model: A network of any rank.

    Raises:
        LiftError: The model is subclassed, not built, or not a Keras model.
    """
    reason = _why_no_graph(model)
    if reason:
        name = getattr(model, "name", str(model))
        raise LiftError(name, [Problem(name, type(model).__name__, "", *reason)])
    calls = tuple(_as_call(node) for node in _nodes_in_order(model.inputs, model.outputs))
    return Graph(tuple(model.inputs), calls, tuple(model.outputs))


def is_network(operation: Layer) -> bool:
    """Return whether an operation is a model whose graph can be read."""
    return not _why_no_graph(operation)


def walk_layers(model: Model) -> Iterator[Layer]:
    """Yield every layer of a network and of its nested networks once."""
    seen: set[int] = set()
    waiting = [model]
    while waiting:
        for layer in waiting.pop().layers:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            if isinstance(layer, keras.Model):
                waiting.append(layer)
            else:
                yield layer


def ends_of(model: Model) -> tuple[Value, Value]:
    """Return a network's symbolic inputs and outputs in their structure: a tensor, a list or a dictionary."""
    if isinstance(model, keras.Sequential):  # its `input` is that of its first call as a layer, if any
        return model.inputs[0], model.outputs[0] if len(model.outputs) == 1 else model.outputs
    return model.input, model.output


def history_of(tensor: Tensor) -> Value:
    """Return (operation, node index, tensor index) of the call that returned a symbolic tensor."""
    return tensor._keras_history  # noqa: SLF001  # Keras has no public access to a call's arguments


def _why_no_graph(model: Model) -> tuple[str, str] | None:
    """Return the reason why a model's graph cannot be read and how to fix it; None if it can be read."""
    if not isinstance(model, keras.Model):
        return (
            f"expected a Keras model, received {type(model).__name__}.",
            "Pass a Functional or Sequential model.",
        )
    ancestors = [kind for kind in type(model).__mro__ if kind.__name__ in {"Sequential", "Functional"}]
    is_functional = ancestors and type(model).call is vars(ancestors[0])["call"]
    if not is_functional and not isinstance(model, FrozenNetwork):
        return SUBCLASSED
    if not getattr(model, "built", False) or not getattr(model, "inputs", None):
        return (
            "the input shape of the model is not known yet.",
            "Call model.build((None, height, width, channels)), or begin the model with keras.Input.",
        )
    return None


def _nodes_in_order(inputs: Value, outputs: Value) -> Iterator[Any]:
    """Yield the nodes between inputs and outputs in topological order."""
    known = {id(tensor) for tensor in inputs}
    done: set[int] = set()
    # A stack instead of recursion: NASNet is deeper than Python's recursion limit.
    stack = [(node, False) for tensor in reversed(outputs) if (node := _node_of(tensor, known))]
    while stack:
        node, ready = stack.pop()
        if id(node) in done:
            continue
        if ready:
            done.add(id(node))
            yield node
            continue
        stack.append((node, True))
        parents = [_node_of(tensor, known) for tensor in reversed(node.input_tensors)]
        stack.extend((parent, False) for parent in parents if parent is not None)


def _node_of(tensor: Tensor, known: set[int]) -> Value:
    """Return the node that returned a tensor; None for an input of the network."""
    if id(tensor) in known:
        return None
    operation, node_index, _ = history_of(tensor)
    return operation._inbound_nodes[node_index]  # noqa: SLF001  # see history_of


def _as_call(node: Value) -> Call:
    return Call(
        operation=node.operation,
        args=node.arguments.args,
        kwargs=node.arguments.kwargs,
        inputs=tuple(node.input_tensors),
        outputs=tuple(node.outputs),
    )
