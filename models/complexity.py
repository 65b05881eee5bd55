"""What a network costs: parameters, floating-point operations and activation memory per layer, for any rank.

The costs of a layer are a pure function of its configuration and shapes, so that a network can be counted
that is not yet built. One multiply-add counts as two operations; counts are for one forward pass at
inference.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras

from models.backend import Tensor
from models.layers.arithmetic import positive_integers

Shape: TypeAlias = tuple[int, ...]
Visit: TypeAlias = Callable[[Any, str, Tensor, Tensor], None]
Rule: TypeAlias = Callable[[Mapping[str, Any], Sequence[Shape], Shape], int]

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
VIEWS = frozenset({"Flatten", "InputLayer", "Reshape", "UnfoldSlices"})  # outputs without memory of their own


@dataclass(frozen=True)
class LayerCost:
    """One call of one layer: a shared layer has an entry per call, with its parameters in the first."""

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
    """Return a model's costs for one sample; arguments and errors are those of `layer_costs`."""
    costs = layer_costs(model, input_shape)
    fields = ("parameters", "trainable_parameters", "flops", "activations", "activation_bytes")
    return ModelCost(costs, *(sum(getattr(cost, field) for cost in costs) for field in fields))


def layer_costs(model: keras.Model, input_shape: Sequence[Any] | None = None) -> tuple[LayerCost, ...]:
    """Return the cost of every layer for one sample, in the order of computation, nested models included.

    A layer that sees the slices of a volume folded into the batch is counted for all of them.

    Args:
        model: A Functional or Sequential model.
        input_shape: Sizes without the batch, where the model leaves some open; one shape per input where it
        has
            several.

    Raises:
        ValueError: A subclassed model, or sizes that stay unknown.
    """
    ledger: list[LayerCost] = []
    seen: set[int] = set()

    def account(operation: Any, name: str, inputs: Tensor, outputs: Tensor) -> None:  # noqa: ANN401  # Keras's operations are untyped
        ledger.append(_cost(operation, name, inputs, outputs, is_new=id(operation) not in seen))
        seen.add(id(operation))

    visit_operations(model, account, input_shape=input_shape)
    return tuple(ledger)


def visit_operations(model: keras.Model, visit: Visit, *, input_shape: Sequence[Any] | None = None) -> None:
    """Call `visit` for every operation in the order of computation, nested models included, on one sample.

    Args:
        model: A Functional or Sequential model.
        visit: Takes an operation, its path in the model, its inputs (a nested structure) and its outputs, all
            symbolic. One tensor is one object, wherever it is used.
        input_shape: See `layer_costs`.

    Raises:
        ValueError: What `layer_costs` raises.
    """
    shapes = _input_shapes(model, input_shape)
    tensors = [
        keras.KerasTensor((1, *shape), dtype=tensor.dtype)
        for shape, tensor in zip(shapes, model.inputs, strict=True)
    ]
    _walk(model, tensors[0] if len(tensors) == 1 else tensors, "", visit)


def layer_flops(
    kind: str, config: Mapping[str, Any], input_shapes: Sequence[Shape], output_shape: Shape
) -> int:
    """Return the floating-point operations of one layer's forward pass.

    Args:
        kind: Name of the layer's class; unknown ones count as free.
        config: The layer's configuration (`get_config()`).
        input_shapes: Shapes of its inputs with the batch, without unknown sizes.
        output_shape: Shape of its output, the same way.
    """
    rule = RULES.get(kind)
    operations = rule(config, input_shapes, output_shape) if rule else 0
    return operations + _extras(kind, config, output_shape)


def _extras(kind: str, config: Mapping[str, Any], output_shape: Shape) -> int:
    """Return the operations of a convolution's or dense layer's bias and activation, one per value each."""
    if kind not in WITH_BIAS:
        return 0
    has_activation = config.get("activation", "linear") not in (None, "linear")
    return math.prod(output_shape) * (bool(config.get("use_bias", True)) + has_activation)


def _taps(config: Mapping[str, Any], key: str, rank: int) -> int:
    return math.prod(positive_integers(config[key], rank, key))


def _convolution(config: Mapping[str, Any], inputs: Sequence[Shape], output: Shape) -> int:
    taps = _taps(config, "kernel_size", len(output) - 2)
    return 2 * math.prod(output) * taps * inputs[0][-1] // int(config.get("groups", 1))


def _acs(config: Mapping[str, Any], inputs: Sequence[Shape], output: Shape) -> int:
    taps = _taps(config, "kernel_size", 2)  # every view's kernel has the taps of the 2D kernel
    return 2 * math.prod(output) * taps * inputs[0][-1] // int(config.get("groups", 1))


def _transposed(config: Mapping[str, Any], inputs: Sequence[Shape], output: Shape) -> int:
    return 2 * math.prod(inputs[0]) * _taps(config, "kernel_size", len(output) - 2) * output[-1]


def _depthwise(config: Mapping[str, Any], _: Sequence[Shape], output: Shape) -> int:
    return 2 * math.prod(output) * _taps(config, "kernel_size", len(output) - 2)


def _separable(config: Mapping[str, Any], inputs: Sequence[Shape], output: Shape) -> int:
    between = math.prod(output[:-1]) * inputs[0][-1] * int(config.get("depth_multiplier", 1))
    return 2 * between * (_taps(config, "kernel_size", len(output) - 2) + output[-1])


def _dense(_: Mapping[str, Any], inputs: Sequence[Shape], output: Shape) -> int:
    return 2 * math.prod(output) * inputs[0][-1]


def _pooling(config: Mapping[str, Any], _: Sequence[Shape], output: Shape) -> int:
    return math.prod(output) * _taps(config, "pool_size", len(output) - 2)


def _per_input(_: Mapping[str, Any], inputs: Sequence[Shape], __: Shape) -> int:
    return math.prod(inputs[0])


def _merge(_: Mapping[str, Any], inputs: Sequence[Shape], output: Shape) -> int:
    return max(len(inputs) - 1, 1) * math.prod(output)


def _per_output(operations: int) -> Rule:
    return lambda _, __, output: operations * math.prod(output)


WITH_BIAS = frozenset(
    {"ACSConv3D", "Dense", "DepthwiseConv1D", "DepthwiseConv2D", "DepthwiseConv3D", "FewPositionsConv3D"}
    | {f"{kind}{rank}D" for kind in ("Conv", "SeparableConv") for rank in (1, 2, 3)}
    | {f"Conv{rank}DTranspose" for rank in (1, 2, 3)}
)
RULES: dict[str, Rule] = {
    **{f"Conv{rank}D": _convolution for rank in (1, 2, 3)},
    **{f"Conv{rank}DTranspose": _transposed for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": _depthwise for rank in (1, 2, 3)},
    **{f"SeparableConv{rank}D": _separable for rank in (1, 2, 3)},
    **{f"{kind}Pooling{rank}D": _pooling for kind in ("Max", "Average") for rank in (1, 2, 3)},
    **{f"Global{kind}Pooling{rank}D": _per_input for kind in ("Max", "Average") for rank in (1, 2, 3)},
    **dict.fromkeys(("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"), _merge),
    **dict.fromkeys(("BatchNormalization", "FusedBatchNormalization", "Normalization"), _per_output(2)),
    **dict.fromkeys(("GroupNormalization", "LayerNormalization", "UnitNormalization"), _per_output(8)),
    **dict.fromkeys(("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "LayerScale"), _per_output(1)),
    "ACSConv3D": _acs,
    "FewPositionsConv3D": _convolution,
    "Dense": _dense,
    "Rescaling": _per_output(2),
    "Softmax": _per_output(5),
    "TrilinearUpSampling3D": _per_output(9),
}


def _input_shapes(model: keras.Model, input_shape: Sequence[Any] | None) -> list[Shape]:
    if not isinstance(model, keras.Sequential) and not hasattr(model, "_run_through_graph"):
        raise ValueError(
            f"{model.name} is a subclassed model, whose layers cannot be followed. Build it as a "
            "Functional model."
        )
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    if input_shape is not None:
        several = input_shape and isinstance(input_shape[0], Sequence)
        shapes = [tuple(shape) for shape in input_shape] if several else [tuple(input_shape)]
    if len(shapes) != len(model.inputs) or any(None in shape for shape in shapes):
        raise ValueError(
            f"{model.name} takes inputs {[tensor.shape for tensor in model.inputs]}, and the sizes "
            f"{shapes} leave "
            "some unknown. Give input_shape without the batch, one per input."
        )
    return shapes


def _walk(model: keras.Model, inputs: Tensor, prefix: str, visit: Visit) -> Tensor:
    def follow(operation: Any) -> Callable[..., Tensor]:  # noqa: ANN401  # Keras's operations are untyped
        def call(*args: Tensor, **kwargs: Tensor) -> Tensor:
            name = f"{prefix}{operation.name}"
            if isinstance(operation, keras.Model):
                return _walk(operation, args[0], f"{name}/", visit)
            outputs = operation.compute_output_spec(*args, **kwargs)
            visit(operation, name, (args, kwargs), outputs)
            return outputs

        return call

    # Keras's own walk of the graph, which clone_model uses too: symbolic, so that nothing is computed or
    # built.
    graph = model._functional if isinstance(model, keras.Sequential) else model  # noqa: SLF001
    return graph._run_through_graph(inputs, operation_fn=follow)  # noqa: SLF001


def _cost(operation: Any, name: str, inputs: Tensor, outputs: Tensor, *, is_new: bool) -> LayerCost:  # noqa: ANN401
    shapes = [tuple(leaf.shape) for leaf in keras.tree.flatten(inputs) if isinstance(leaf, keras.KerasTensor)]
    results = [tuple(leaf.shape) for leaf in keras.tree.flatten(outputs)]
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
