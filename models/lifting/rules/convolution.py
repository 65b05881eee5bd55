"""Rules for convolutions: plain, depthwise and separable."""

from collections.abc import Mapping
from typing import Any

import keras

from voxlift.models.layers import ACSConv3D, DepthwiseConv3D, FewPositionsConv3D, SeparableConv3D
from voxlift.models.layers.few_positions import takes_few_positions
from voxlift.models.lifting.flow import Flow, Shape
from voxlift.models.lifting.inflate import centre_tap, inflate
from voxlift.models.lifting.kinds import LayerClass
from voxlift.models.lifting.rules.answers import (
    depth_padding_layer,
    is_nonnegative_activation,
    spatial_output,
    weights_of,
)
from voxlift.models.lifting.rules.base import LayerCall, Lifted, Weights
from voxlift.models.lifting.rules.kernels import (
    depth_taps,
    describe,
    fix_constraint,
    pair,
    reduced,
    refuse_dilated_steps,
    scheme_of,
)
from voxlift.models.lifting.windows import dilated, split_padding, taps_inside, window_output

WEIGHT_OPTIONS = ("initializer", "regularizer", "constraint")


def lift_convolution(call: LayerCall) -> Lifted:
    """Return Conv3D for Conv2D; one group per channel takes the depthwise layer, 100 times as fast.

    Raises:
        RefusedError: It reads no volume with channels last, or the depth stride and its dilation exclude each
            other.
    """
    groups = call.config["groups"]
    if groups > 1 and groups == call.volume().channels:
        return _lift_grouped_as_depthwise(call)
    taps, changes, facts = _window(call)
    refuse_dilated_steps(changes)
    layer_class, changes = _class_for(call, changes, facts["outputs"][0])
    kernel_shape = call.weight_shapes[0] if layer_class is ACSConv3D else (taps, *call.weight_shapes[0])
    return Lifted(
        layer_class,
        {**call.config, **changes},
        weight_shapes=(kernel_shape, *call.weight_shapes[1:]),
        **facts,
        **_inflation(call, taps, layer_class),
    )


def lift_depthwise(call: LayerCall) -> Lifted:
    """Return DepthwiseConv3D for DepthwiseConv2D."""
    taps, changes, facts = _window(call)
    return Lifted(
        DepthwiseConv3D,
        {**call.config, **fix_constraint(call.config, changes, "depthwise")},
        weight_shapes=((taps, *call.weight_shapes[0]), *call.weight_shapes[1:]),
        **facts,
        **_inflation(call, taps, DepthwiseConv3D),
    )


def lift_separable(call: LayerCall) -> Lifted:
    """Return SeparableConv3D for SeparableConv2D: the depthwise kernel inflated, the pointwise copied."""
    taps, changes, facts = _window(call)
    pointwise: Shape = (1, *call.weight_shapes[1])

    def transfer(weights: Weights) -> Weights:
        depthwise, point, *bias = weights
        return [inflate(depthwise, taps, scheme_of(call)), point[None], *bias]

    return Lifted(
        SeparableConv3D,
        {**call.config, **fix_constraint(call.config, changes, "depthwise")},
        weight_shapes=((taps, *call.weight_shapes[0]), pointwise, *call.weight_shapes[2:]),
        **facts,
        **weights_of(call, transfer, f"inflated, {scheme_of(call)}"),
    )


def _lift_grouped_as_depthwise(call: LayerCall) -> Lifted:
    taps, changes, facts = _window(call)
    config = {key: value for key, value in call.config.items() if key not in {"filters", "groups"}}
    for option in WEIGHT_OPTIONS:
        config[f"depthwise_{option}"] = config.pop(f"kernel_{option}")
    height, width, _, filters = call.weight_shapes[0]
    shape = (height, width, call.flow.channels, int(filters or 0) // int(call.flow.channels or 1))

    def transfer(weights: Weights) -> Weights:
        # Group c's filters stand side by side, as the depthwise kernel's last two axes do.
        return [
            inflate(weights[0].reshape([int(size or 0) for size in shape]), taps, scheme_of(call)),
            *weights[1:],
        ]

    changes = {**changes, "depth_multiplier": shape[-1]}
    return Lifted(
        DepthwiseConv3D,
        {**config, **fix_constraint(config, changes, "depthwise")},
        weight_shapes=((taps, *shape), *call.weight_shapes[1:]),
        **facts,
        **weights_of(call, transfer, f"inflated, {scheme_of(call)}"),
    )


def _window(call: LayerCall) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Return the depth taps, what changes in the configuration, and the other facts of a convolution."""
    flow, config = call.volume(), call.config
    strides, dilations = pair(config["strides"]), pair(config["dilation_rate"])
    taps, dilation = depth_taps(config, call.rule)
    stride = call.rule.stride_for(strides[0])
    pads = _missing_padding(call, taps, dilation)
    depth = None if flow.depth is None else flow.depth + sum(pads)
    windows = zip((depth, *flow.shape[2:4]), (taps, *config["kernel_size"]), strict=True)
    rates = zip((stride, *strides), (dilation, *dilations), strict=True)
    sizes = tuple(
        window_output(size, window, stride=step, padding=config["padding"], dilation=rate)
        for (size, window), (step, rate) in zip(windows, rates, strict=True)
    )
    changes = {
        "kernel_size": (taps, *config["kernel_size"]),
        "strides": (stride, *strides),
        "dilation_rate": (dilation, *dilations),
    }
    output = spatial_output(call, sizes).become(
        is_nonnegative=is_nonnegative_activation(config), reduction=reduced(flow, stride, strides[0])
    )
    facts = {
        "outputs": (output,),
        "before": (depth_padding_layer(call, *pads),) if any(pads) else (),
        "window": describe(changes, config["padding"]),
        "inexact": _inexact(call, taps, stride, dilation, pads),
    }
    return taps, changes, facts


def _missing_padding(call: LayerCall, taps: int, dilation: int) -> tuple[int, int]:
    """Return the slices that a `valid` convolution lacks to give as many slices as it takes."""
    if call.config["padding"] != "valid" or not call.rule.keeps_depth:
        return 0, 0
    front, back = split_padding(dilated(taps, dilation) - 1)
    given = call.flow.depth_padding
    return max(front - given[0], 0), max(back - given[1], 0)


def _inexact(call: LayerCall, taps: int, stride: int, dilation: int, pads: tuple[int, int]) -> str:
    flow = call.flow
    front, back = flow.depth_padding[0] + pads[0], flow.depth_padding[1] + pads[1]
    real = None if flow.depth is None else flow.depth - sum(flow.depth_padding)
    if call.config["padding"] == "same":
        return "" if not any(flow.depth_padding) else "slices of zeros before it reach its centre tap"
    inside = taps_inside(
        real, front, back, window=taps, tap=centre_tap(taps), stride=stride, dilation=dilation
    )
    return "" if inside else "slices of zeros before it reach its centre tap"


def _class_for(call: LayerCall, changes: dict[str, Any], output: Flow) -> tuple[Any, dict[str, Any]]:
    changes = fix_constraint(call.config, changes, "kernel")
    if call.scheme != "acs" or changes["kernel_size"][0] == 1 or not _has_views(call.config, changes):
        kernel_shape = (*changes["kernel_size"], *call.weight_shapes[0][2:])
        is_few = takes_few_positions(call.flow.shape[1:4], output.shape[1:4], kernel_shape)
        return FewPositionsConv3D if call.is_fused and is_few else keras.layers.Conv3D, changes
    return ACSConv3D, {**changes, "kernel_size": call.config["kernel_size"]}


def _has_views(config: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    """Return whether a kernel can be turned into all three views, and all outputs stay as large."""
    depth, height, width = changes["kernel_size"]
    is_square = height == width or config["padding"] == "same"
    return bool(depth == height and is_square and config["groups"] != 2)


def _inflation(call: LayerCall, taps: int, layer_class: LayerClass) -> dict[str, Any]:
    if layer_class is ACSConv3D:
        return weights_of(call, lambda weights: weights, "shared over three views")

    def transfer(weights: Weights) -> Weights:
        return [inflate(weights[0], taps, scheme_of(call)), *weights[1:]]

    return weights_of(call, transfer, "copied" if taps == 1 else f"inflated, {scheme_of(call)}")
