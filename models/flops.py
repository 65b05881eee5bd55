"""Floating-point operations of a layer, for any rank, from its configuration and shapes alone.

So a network can be counted that is not yet built. One multiply-add counts as two operations.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from voxlift.models.layers.arithmetic import positive_integers

Shape: TypeAlias = tuple[int, ...]
Rule: TypeAlias = Callable[[Mapping[str, Any], Sequence[Shape], Shape], int]


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
