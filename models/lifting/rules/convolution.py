"""Rules for convolutions: plain, depthwise and separable."""

from collections.abc import Mapping
from typing import Any

import keras

from voxlift.models.layers import (
    ACSConv3D,
    DepthwiseConv3D,
    FewChannelsConv3D,
    FewPositionsConv3D,
    SeparableConv3D,
)
from voxlift.models.layers.few_channels import benefits_from_stacked_taps
from voxlift.models.layers.few_positions import benefits_from_few_positions
from voxlift.models.lifting.inflate import centre_tap, inflate
from voxlift.models.lifting.rules.base import LayerCall, Lifted, copy_weights, weight_transfer
from voxlift.models.lifting.rules.results import (
    depth_padding_layer,
    is_nonnegative_activation,
    spatial_output,
)
from voxlift.models.lifting.rules.windows import (
    GROUPED_AXES,
    depth_taps,
    describe_kernel,
    dilated,
    downsampled,
    inflation_scheme,
    is_tap_inside,
    move_weight_axes,
    pair,
    require_stride_or_dilation,
    split_padding,
    window_output,
)
from voxlift.models.lifting.types import LayerClass, Shape, TensorSpec, Weights

WEIGHT_OPTIONS = ("initializer", "regularizer", "constraint")


def lift_convolution(call: LayerCall) -> Lifted:
    """Return Conv3D for Conv2D; one group per channel becomes DepthwiseConv3D, which is 100 times as fast.

    Raises:
        UnsupportedError: It reads no channels-last volume, or it has a depth stride and dilation.
    """
    groups = call.config["groups"]
    if groups > 1 and groups == call.require_volume().channels:
        return _lift_grouped_as_depthwise(call)
    taps, changes, results = _lift_window(call)
    require_stride_or_dilation(changes)
    layer_class, changes = _choose_class(call, changes, results["outputs"][0])
    kernel_shape = call.weight_shapes[0] if layer_class is ACSConv3D else (taps, *call.weight_shapes[0])
    return Lifted(
        layer_class,
        {**call.config, **changes},
        weight_shapes=(kernel_shape, *call.weight_shapes[1:]),
        **results,
        **_inflate_kernel(call, taps, layer_class),
    )


def lift_depthwise(call: LayerCall) -> Lifted:
    """Return DepthwiseConv3D for DepthwiseConv2D."""
    taps, changes, results = _lift_window(call)
    return Lifted(
        DepthwiseConv3D,
        {**call.config, **changes, **move_weight_axes(call.config, "depthwise")},
        weight_shapes=((taps, *call.weight_shapes[0]), *call.weight_shapes[1:]),
        **results,
        **_inflate_kernel(call, taps, DepthwiseConv3D),
    )


def lift_separable(call: LayerCall) -> Lifted:
    """Return SeparableConv3D for SeparableConv2D: the depthwise kernel inflated, the pointwise copied."""
    taps, changes, results = _lift_window(call)
    pointwise_shape: Shape = (1, *call.weight_shapes[1])

    def transfer(weights: Weights) -> Weights:
        depthwise, pointwise, *bias = weights
        return [inflate(depthwise, taps, inflation_scheme(call)), pointwise[None], *bias]

    return Lifted(
        SeparableConv3D,
        {
            **call.config,
            **changes,
            **move_weight_axes(call.config, "depthwise"),
            **move_weight_axes(call.config, "pointwise"),
        },
        weight_shapes=((taps, *call.weight_shapes[0]), pointwise_shape, *call.weight_shapes[2:]),
        **results,
        **weight_transfer(call, transfer, f"inflated, {inflation_scheme(call)}"),
    )


def _lift_grouped_as_depthwise(call: LayerCall) -> Lifted:
    taps, changes, results = _lift_window(call)
    config = {key: value for key, value in call.config.items() if key not in {"filters", "groups"}}
    for option in WEIGHT_OPTIONS:
        config[f"depthwise_{option}"] = config.pop(f"kernel_{option}")
    height, width, _, filters = call.weight_shapes[0]
    shape = (height, width, call.spec.channels, int(filters or 0) // int(call.spec.channels or 1))

    def transfer(weights: Weights) -> Weights:
        # The filters of a group are adjacent, as are the last two axes of a depthwise kernel.
        kernel = weights[0].reshape([int(size or 0) for size in shape])
        return [inflate(kernel, taps, inflation_scheme(call)), *weights[1:]]

    changes = {**changes, "depth_multiplier": shape[-1]}
    return Lifted(
        DepthwiseConv3D,
        {**config, **changes, **move_weight_axes(config, "depthwise", GROUPED_AXES)},
        weight_shapes=((taps, *shape), *call.weight_shapes[1:]),
        **results,
        **weight_transfer(call, transfer, f"inflated, {inflation_scheme(call)}"),
    )


def _lift_window(call: LayerCall) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Return the depth taps, the changes of the configuration, and other fields of `Lifted`."""
    spec, config = call.require_volume(), call.config
    strides, dilations = pair(config["strides"]), pair(config["dilation_rate"])
    taps, dilation = depth_taps(config, call.depth_rule)
    stride = call.depth_rule.stride_for(strides[0])
    pads = _missing_padding(call, taps, dilation)
    changes = {
        "kernel_size": (taps, *config["kernel_size"]),
        "strides": (stride, *strides),
        "dilation_rate": (dilation, *dilations),
    }
    depth = None if spec.depth is None else spec.depth + sum(pads)
    windows = zip((depth, *spec.shape[2:4]), *changes.values(), strict=True)
    sizes = tuple(
        window_output(size, window, stride=step, padding=config["padding"], dilation=rate)
        for size, window, step, rate in windows
    )
    output = spatial_output(call, sizes).replace(
        is_nonnegative=is_nonnegative_activation(config), downsampling=downsampled(spec, stride, strides[0])
    )
    results = {
        "outputs": (output,),
        "before": (depth_padding_layer(call, *pads),) if any(pads) else (),
        "window": describe_kernel(changes, config["padding"]),
        "inexact": "" if _is_exact(call, changes, pads) else "slices of zeros reach its centre tap",
    }
    return taps, changes, results


def _missing_padding(call: LayerCall, taps: int, dilation: int) -> tuple[int, int]:
    """Return the slices (front, back) that a `valid` convolution needs to keep the number of slices."""
    if call.config["padding"] != "valid" or not call.depth_rule.keeps_depth:
        return 0, 0
    front, back = split_padding(dilated(taps, dilation) - 1)
    given = call.spec.depth_padding
    return max(front - given[0], 0), max(back - given[1], 0)


def _is_exact(call: LayerCall, changes: Mapping[str, Any], pads: tuple[int, int]) -> bool:
    """Return whether the centre tap along depth is never applied to slices of zeros."""
    spec = call.spec
    if call.config["padding"] == "same":
        return not any(spec.depth_padding)
    taps, stride, dilation = (changes[key][0] for key in ("kernel_size", "strides", "dilation_rate"))
    front, back = spec.depth_padding[0] + pads[0], spec.depth_padding[1] + pads[1]
    real = None if spec.depth is None else spec.depth - sum(spec.depth_padding)
    return is_tap_inside(
        real, front, back, window=taps, tap=centre_tap(taps), stride=stride, dilation=dilation
    )


def _choose_class(
    call: LayerCall, changes: dict[str, Any], output: TensorSpec
) -> tuple[LayerClass, dict[str, Any]]:
    """Return the 3D class of a plain convolution and the changes of its configuration."""
    if call.scheme == "acs" and changes["kernel_size"][0] > 1 and _has_views(call.config, changes):
        return ACSConv3D, {**changes, "kernel_size": call.config["kernel_size"]}  # the kernel stays 2D
    changes = {**changes, **move_weight_axes(call.config, "kernel")}
    kernel_shape = (*changes["kernel_size"], *call.weight_shapes[0][2:])
    if call.is_fused and benefits_from_few_positions(call.spec.shape[1:4], output.shape[1:4], kernel_shape):
        return FewPositionsConv3D, changes
    if call.is_fused and benefits_from_stacked_taps(kernel_shape[3]):
        return FewChannelsConv3D, changes
    return keras.layers.Conv3D, changes


def _has_views(config: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    """Return whether a kernel can be turned to all three views with outputs of equal size."""
    depth, height, width = changes["kernel_size"]
    is_square = height == width or config["padding"] == "same"
    return bool(depth == height and is_square and config["groups"] != 2)


def _inflate_kernel(call: LayerCall, taps: int, layer_class: LayerClass) -> dict[str, Any]:
    if layer_class is ACSConv3D:
        return weight_transfer(call, copy_weights, "shared over three views")

    def transfer(weights: Weights) -> Weights:
        return [inflate(weights[0], taps, inflation_scheme(call)), *weights[1:]]

    source = "copied" if taps == 1 else f"inflated, {inflation_scheme(call)}"
    return weight_transfer(call, transfer, source)
