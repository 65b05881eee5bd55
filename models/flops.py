"""Floating-point operations of one layer's forward pass, for any rank, from its configuration and shapes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from voxlift.models.layers.conv_arithmetic import standardize_tuple

Shape: TypeAlias = tuple[int, ...]
Rule: TypeAlias = Callable[[Mapping[str, Any], Sequence[Shape], Shape], int]


def layer_flops(
    kind: str, config: Mapping[str, Any], input_shapes: Sequence[Shape], output_shape: Shape
) -> int:
    """Return the floating-point operations of one layer's forward pass; a multiply-add counts as two.

    Args:
        kind: Name of the layer's class; unknown ones count as zero.
        config: The layer's configuration (`get_config()`); needed for the kinds in `RULES`.
        input_shapes: Shapes of its inputs with the batch, all sizes known.
        output_shape: Shape of its output, likewise.
    """
    outputs = math.prod(output_shape)
    if kind in OPERATIONS_PER_OUTPUT:
        return OPERATIONS_PER_OUTPUT[kind] * outputs
    if kind not in RULES:
        return 0
    operations = RULES[kind](config, input_shapes, output_shape)
    if kind in HAS_BIAS:
        has_activation = config.get("activation", "linear") not in (None, "linear")
        operations += outputs * (bool(config.get("use_bias", True)) + has_activation)
    return operations


def _kernel_taps(config: Mapping[str, Any], key: str, rank: int) -> int:
    return math.prod(standardize_tuple(config[key], rank, key))


def _convolution(config: Mapping[str, Any], inputs: Sequence[Shape], output: Shape) -> int:
    taps = _kernel_taps(config, "kernel_size", len(output) - 2)
    return 2 * math.prod(output) * taps * inputs[0][-1] // int(config.get("groups", 1))


def _acs(config: Mapping[str, Any], inputs: Sequence[Shape], output: Shape) -> int:
    taps = _kernel_taps(config, "kernel_size", 2)  # every view's kernel has the taps of the 2D kernel
    return 2 * math.prod(output) * taps * inputs[0][-1] // int(config.get("groups", 1))


def _transposed(config: Mapping[str, Any], inputs: Sequence[Shape], output: Shape) -> int:
    return 2 * math.prod(inputs[0]) * _kernel_taps(config, "kernel_size", len(output) - 2) * output[-1]


def _depthwise(config: Mapping[str, Any], _: Sequence[Shape], output: Shape) -> int:
    return 2 * math.prod(output) * _kernel_taps(config, "kernel_size", len(output) - 2)


def _separable(config: Mapping[str, Any], inputs: Sequence[Shape], output: Shape) -> int:
    intermediate = math.prod(output[:-1]) * inputs[0][-1] * int(config.get("depth_multiplier", 1))
    return 2 * intermediate * (_kernel_taps(config, "kernel_size", len(output) - 2) + output[-1])


def _dense(_: Mapping[str, Any], inputs: Sequence[Shape], output: Shape) -> int:
    return 2 * math.prod(output) * inputs[0][-1]


def _pooling(config: Mapping[str, Any], _: Sequence[Shape], output: Shape) -> int:
    return math.prod(output) * _kernel_taps(config, "pool_size", len(output) - 2)


def _global_pooling(_: Mapping[str, Any], inputs: Sequence[Shape], __: Shape) -> int:
    return math.prod(inputs[0])


def _attention(config: Mapping[str, Any], inputs: Sequence[Shape], output: Shape) -> int:
    query, keys = inputs[0], inputs[min(1, len(inputs) - 1)]
    heads, key_dim = int(config["num_heads"]), int(config["key_dim"])
    value_dim = int(config.get("value_dim") or key_dim)
    projections = math.prod(query) * key_dim + math.prod(keys) * (key_dim + value_dim)
    scores = query[0] * query[1] * keys[1] * (key_dim + value_dim)
    return 2 * heads * (projections + scores + math.prod(output) * value_dim)


def _merge(_: Mapping[str, Any], inputs: Sequence[Shape], output: Shape) -> int:
    return max(len(inputs) - 1, 1) * math.prod(output)


RULES: dict[str, Rule] = {
    **{f"Conv{rank}D": _convolution for rank in (1, 2, 3)},
    **{f"Conv{rank}DTranspose": _transposed for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": _depthwise for rank in (1, 2, 3)},
    **{f"SeparableConv{rank}D": _separable for rank in (1, 2, 3)},
    **{f"{kind}Pooling{rank}D": _pooling for kind in ("Max", "Average") for rank in (1, 2, 3)},
    **{f"Global{kind}Pooling{rank}D": _global_pooling for kind in ("Max", "Average") for rank in (1, 2, 3)},
    **dict.fromkeys(("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"), _merge),
    "ACSConv3D": _acs,
    "FewChannelsConv3D": _convolution,
    "FewPositionsConv3D": _convolution,
    "Dense": _dense,
    "MultiHeadAttention": _attention,
    "TokenAttention3D": _attention,
}
HAS_BIAS = frozenset(
    {"ACSConv3D", "Dense", "DepthwiseConv1D", "DepthwiseConv2D", "DepthwiseConv3D"}
    | {"FewChannelsConv3D", "FewPositionsConv3D"}
    | {f"{kind}{rank}D" for kind in ("Conv", "SeparableConv") for rank in (1, 2, 3)}
    | {f"Conv{rank}DTranspose" for rank in (1, 2, 3)}
)
OPERATIONS_PER_OUTPUT = {
    **dict.fromkeys(("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "LayerScale"), 1),
    **dict.fromkeys(("BatchNormalization", "FusedBatchNormalization", "Normalization", "Rescaling"), 2),
    "Softmax": 5,
    **dict.fromkeys(("GroupNormalization", "LayerNormalization", "UnitNormalization"), 8),
    "TrilinearUpSampling3D": 9,
}
