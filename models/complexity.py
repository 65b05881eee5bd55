"""The complexity of a network, per layer: parameters, floating-point operations, activation memory; any rank.

Operations are those of one forward pass at inference, see `models.flops`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras

from voxlift.models.backend import Tensor
from voxlift.models.flops import RULES, Shape, layer_flops

Visit: TypeAlias = Callable[[Any, str, Tensor, Tensor], None]

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
# Their outputs share memory with their inputs.
VIEWS = frozenset({"Flatten", "InputLayer", "Reshape", "UnfoldSlices"})


@dataclass(frozen=True)
class LayerCost:
    """The costs of one call of a layer; the parameters of a shared layer are counted in its first call."""

    name: str
    kind: str
    output_shape: Shape
    parameters: int
    trainable_parameters: int
    flops: int
    activations: int
    activation_bytes: int


@dataclass(frozen=True)
class ModelCost:
    """The sums over a model's layers, for one sample."""

    layers: tuple[LayerCost, ...]
    parameters: int
    trainable_parameters: int
    flops: int
    activations: int
    activation_bytes: int


def model_cost(model: keras.Model, input_shape: Sequence[Any] | None = None) -> ModelCost:
    """Return the costs of a model for one sample.

    Args:
        model: A Functional or Sequential model.
        input_shape: See `layer_costs`.

    Raises:
        ValueError: See `layer_costs`.
    """
    costs = layer_costs(model, input_shape)
    fields = ("parameters", "trainable_parameters", "flops", "activations", "activation_bytes")
    return ModelCost(costs, *(sum(getattr(cost, field) for cost in costs) for field in fields))


def layer_costs(model: keras.Model, input_shape: Sequence[Any] | None = None) -> tuple[LayerCost, ...]:
    """Return the cost of every layer for one sample, in the order of computation, nested models included.

    Layers of the slice model that are applied to every slice are counted for all slices of a volume.

    Args:
        model: A Functional or Sequential model.
        input_shape: Shape without the batch, if the model leaves sizes open; one shape per input if it has
            several inputs.

    Raises:
        ValueError: The model is subclassed, or sizes remain unknown.
    """
    costs: list[LayerCost] = []
    seen: set[int] = set()

    def add_cost(operation: Any, name: str, inputs: Tensor, outputs: Tensor) -> None:  # noqa: ANN401  # Keras's operations are untyped
        costs.append(_cost(operation, name, inputs, outputs, is_new=id(operation) not in seen))
        seen.add(id(operation))

    visit_operations(model, add_cost, input_shape=input_shape)
    return tuple(costs)


def visit_operations(model: keras.Model, visit: Visit, *, input_shape: Sequence[Any] | None = None) -> None:
    """Call `visit` for every operation, in the order of computation, nested models included, for one sample.

    Args:
        model: A Functional or Sequential model.
        visit: Called with an operation, its path in the model, its inputs (a nested structure) and outputs,
            all symbolic. A tensor is the same object wherever it is used.
        input_shape: See `layer_costs`.

    Raises:
        ValueError: See `layer_costs`.
    """
    shapes = _input_shapes(model, input_shape)
    tensors = [
        keras.KerasTensor((1, *shape), dtype=tensor.dtype)
        for shape, tensor in zip(shapes, model.inputs, strict=True)
    ]
    _walk(model, tensors[0] if len(tensors) == 1 else tensors, "", visit)


def _input_shapes(model: keras.Model, input_shape: Sequence[Any] | None) -> list[Shape]:
    if not isinstance(model, keras.Sequential) and not hasattr(model, "_run_through_graph"):
        raise ValueError(
            f"{model.name} is a subclassed model, whose graph is unknown. Build it with the Functional API."
        )
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    if input_shape is not None:
        is_nested = input_shape and isinstance(input_shape[0], Sequence)
        shapes = [tuple(shape) for shape in input_shape] if is_nested else [tuple(input_shape)]
    if len(shapes) != len(model.inputs) or any(None in shape for shape in shapes):
        raise ValueError(
            f"{model.name}: expected known sizes for its inputs {[tensor.shape for tensor in model.inputs]}, "
            f"received {shapes}. Give input_shape without the batch, one shape per input."
        )
    return shapes


def _walk(model: keras.Model, inputs: Tensor, prefix: str, visit: Visit) -> Tensor:
    def wrap(operation: Any) -> Callable[..., Tensor]:  # noqa: ANN401  # Keras's operations are untyped
        def call(*args: Tensor, **kwargs: Tensor) -> Tensor:
            name = f"{prefix}{operation.name}"
            if isinstance(operation, keras.Model):
                return _walk(operation, args[0], f"{name}/", visit)
            outputs = _output_spec(operation, args, kwargs)
            visit(operation, name, (args, kwargs), outputs)
            return outputs

        return call

    # Keras's own execution of the graph, which clone_model uses too; symbolic, so nothing is computed.
    graph = model._functional if isinstance(model, keras.Sequential) else model  # noqa: SLF001
    return graph._run_through_graph(inputs, operation_fn=wrap)  # noqa: SLF001


class _InPrecision(keras.layers.Layer):
    """Run a function with the variables cast as in a call of a layer, which Keras does in a call alone."""

    def __init__(self, function: Callable[[], Tensor], dtype: keras.DTypePolicy) -> None:
        super().__init__(dtype=dtype)
        self._function = function

    def call(self, inputs: Tensor) -> Tensor:
        return inputs

    def compute_output_spec(self, inputs: Tensor) -> Tensor:  # noqa: ARG002  # only that there are inputs counts
        return self._function()


def _output_spec(operation: Any, args: Any, kwargs: Any) -> Tensor:  # noqa: ANN401  # Keras's operations are untyped
    kind, base = type(operation), keras.layers.Layer
    is_mixed = isinstance(operation, base) and operation.compute_dtype != operation.variable_dtype
    traces_call = is_mixed and (
        kind.compute_output_spec is base.compute_output_spec
        and kind.compute_output_shape is base.compute_output_shape
    )
    if not traces_call or not operation.autocast:
        return operation.compute_output_spec(*args, **kwargs)
    tensor = next(leaf for leaf in keras.tree.flatten((args, kwargs)) if isinstance(leaf, keras.KerasTensor))
    return _InPrecision(lambda: operation.compute_output_spec(*args, **kwargs), operation.dtype_policy)(
        tensor
    )


def _cost(operation: Any, name: str, inputs: Tensor, outputs: Tensor, *, is_new: bool) -> LayerCost:  # noqa: ANN401
    shapes = [tuple(leaf.shape) for leaf in keras.tree.flatten(inputs) if isinstance(leaf, keras.KerasTensor)]
    results = [tuple(leaf.shape) for leaf in keras.tree.flatten(outputs)]
    if any(None in shape for shape in (*shapes, *results)):
        raise ValueError(
            f"{name} has an output of shape {results[0]}, with unknown sizes. Build it with all sizes known."
        )
    is_layer = isinstance(operation, keras.layers.Layer)
    kind = type(operation).__name__
    config = operation.get_config() if is_layer and kind in RULES else {}
    activations = 0 if kind in VIEWS else sum(math.prod(shape) for shape in results)
    width = BYTES.get(operation.compute_dtype if is_layer else keras.config.floatx(), 4)
    return LayerCost(
        name=name,
        kind=kind,
        output_shape=results[0],
        parameters=operation.count_params() if is_layer and is_new else 0,
        trainable_parameters=_count(operation.trainable_weights) if is_layer and is_new else 0,
        flops=layer_flops(kind, config, shapes, results[0]),
        activations=activations,
        activation_bytes=activations * width,
    )


def _count(weights: Sequence[Any]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)
