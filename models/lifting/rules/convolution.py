"""Rules for convolutions: plain, depthwise, separable and transposed."""

from collections.abc import Mapping
from typing import Any

import keras

from models.layers import ACSConv3D, DepthwiseConv3D, FewPositionsConv3D, SeparableConv3D
from models.layers.few_positions import takes_few_positions
from models.lifting.depth import DepthRule
from models.lifting.errors import RefusedError
from models.lifting.flow import Flow, Shape
from models.lifting.inflate import centre_tap, inflate, inflate_transposed
from models.lifting.kinds import LayerClass, Value
from models.lifting.rules.base import (
    Extra,
    LayerCall,
    Lifted,
    Weights,
    depth_padding_layer,
    dtype_of,
    is_nonnegative_activation,
    spatial_output,
    weights_of,
)
from models.lifting.windows import dilated, split_padding, taps_inside, transposed_output, window_output

WEIGHT_OPTIONS = ("initializer", "regularizer", "constraint")


def lift_convolution(call: LayerCall) -> Lifted:
    """Return Conv3D for Conv2D; one group per channel takes the depthwise layer, 100 times as fast."""
    groups = call.config["groups"]
    if groups > 1 and groups == call.volume().channels:
        return _lift_grouped_as_depthwise(call)
    taps, changes, facts = _window(call)
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
        {**call.config, **_fix_constraint(call.config, changes, "depthwise")},
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
        return [inflate(depthwise, taps, _scheme(call)), point[None], *bias]

    return Lifted(
        SeparableConv3D,
        {**call.config, **_fix_constraint(call.config, changes, "depthwise")},
        weight_shapes=((taps, *call.weight_shapes[0]), pointwise, *call.weight_shapes[2:]),
        **facts,
        **weights_of(call, transfer, f"inflated, {_scheme(call)}"),
    )


def lift_transposed(call: LayerCall) -> Lifted:
    """Return Conv3DTranspose for Conv2DTranspose."""
    flow, config = call.volume(), call.config
    stride = call.rule.stride_for(config["strides"][0])
    dilation = config["dilation_rate"][0] if stride == 1 else 1
    # Fewer taps than the stride would leave slices that no kernel reaches.
    taps = max(_odd_if_dilated(call.rule.kernel_for(config["kernel_size"][0]), dilation), stride)
    extra = _output_padding(call, stride)
    is_cropped = call.rule.keeps_depth and config["padding"] == "valid" and taps > 1
    sizes = _transposed_sizes(call, (taps, stride, dilation, None if extra is None else extra[0]))
    crop = split_padding(dilated(taps, dilation) - 1) if is_cropped else (0, 0)
    depth = flow.depth if is_cropped else sizes[0]
    inexact = "" if is_cropped else _transposed_inexact(config["padding"], taps, stride)
    output = spatial_output(call, (depth, *sizes[1:])).become(
        reduction=_reduced(flow, 1 / stride, 1 / config["strides"][0])
    )

    def transfer(weights: Weights) -> Weights:
        return [inflate_transposed(weights[0], taps, _scheme(call), stride=stride), *weights[1:]]

    changes = {
        "kernel_size": (taps, *config["kernel_size"]),
        "strides": (stride, *config["strides"]),
        "dilation_rate": (dilation, *config["dilation_rate"]),
        "output_padding": extra,
    }
    return Lifted(
        keras.layers.Conv3DTranspose,
        {**config, **_fix_constraint(config, changes, "kernel")},
        (output,),
        weight_shapes=((taps, *call.weight_shapes[0]), *call.weight_shapes[1:]),
        after=(_depth_crop(call, crop),) if is_cropped else (),
        window=_describe(changes, config["padding"]),
        inexact=inexact,
        **weights_of(call, transfer, f"inflated, {_scheme(call)}"),
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
            inflate(weights[0].reshape([int(size or 0) for size in shape]), taps, _scheme(call)),
            *weights[1:],
        ]

    changes = {**changes, "depth_multiplier": shape[-1]}
    return Lifted(
        DepthwiseConv3D,
        {**config, **_fix_constraint(config, changes, "depthwise")},
        weight_shapes=((taps, *shape), *call.weight_shapes[1:]),
        **facts,
        **weights_of(call, transfer, f"inflated, {_scheme(call)}"),
    )


def _window(call: LayerCall) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Return the depth taps, what changes in the configuration, and the other facts of a convolution."""
    flow, config = call.volume(), call.config
    strides, dilations = _pair(config["strides"]), _pair(config["dilation_rate"])
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
        is_nonnegative=is_nonnegative_activation(config), reduction=_reduced(flow, stride, strides[0])
    )
    facts = {
        "outputs": (output,),
        "before": (depth_padding_layer(call, *pads),) if any(pads) else (),
        "window": _describe(changes, config["padding"]),
        "inexact": _inexact(call, taps, stride, dilation, pads),
    }
    return taps, changes, facts


def depth_taps(config: Mapping[str, Any], rule: DepthRule) -> tuple[int, int]:
    """Return a convolution's taps and dilation along depth."""
    dilation = _pair(config["dilation_rate"])[0]
    taps = _odd_if_dilated(rule.kernel_for(config["kernel_size"][0]), dilation)
    return taps, dilation if taps > 1 else 1


def _odd_if_dilated(taps: int, dilation: int) -> int:
    # A dilated kernel with an even number of taps has none at the output position.
    return taps + 1 if dilation > 1 and taps % 2 == 0 else taps


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
    changes = _fix_constraint(call.config, changes, "kernel")
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
        return [inflate(weights[0], taps, _scheme(call)), *weights[1:]]

    return weights_of(call, transfer, "copied" if taps == 1 else f"inflated, {_scheme(call)}")


def _scheme(call: LayerCall) -> str:
    # What three views cannot hold (depthwise, grouped, transposed, non-square kernels) takes the centre tap.
    return "mean" if call.scheme == "mean" else "centre"


def _fix_constraint(config: Mapping[str, Any], changes: dict[str, Any], weight: str) -> dict[str, Any]:
    """Return the changes with a kernel constraint's axes moved behind the new depth axis."""
    key = f"{weight}_constraint"
    constraint: Mapping[str, Any] = config[key] if isinstance(config.get(key), dict) else {}
    settings = constraint.get("config", {})
    if "axis" not in settings:
        return changes
    axes = settings["axis"] if isinstance(settings["axis"], list | tuple) else [settings["axis"]]
    moved = [axis + 1 if axis >= 0 else axis for axis in axes]
    moved = [0, *moved] if {0, 1} <= set(axes) else moved
    return {**changes, key: {**constraint, "config": {**settings, "axis": moved}}}


def _transposed_sizes(call: LayerCall, depth: tuple[int, int, int, int | None]) -> tuple[int | None, ...]:
    config, flow = call.config, call.flow
    extra = _pair(config["output_padding"]) if config["output_padding"] is not None else (None, None)
    in_plane = zip(config["kernel_size"], config["strides"], config["dilation_rate"], extra, strict=True)
    return tuple(
        transposed_output(
            size, window, stride=stride, padding=config["padding"], dilation=dilation, extra=added
        )
        for size, (window, stride, dilation, added) in zip(flow.shape[1:4], (depth, *in_plane), strict=True)
    )


def _output_padding(call: LayerCall, stride: int) -> tuple[int, int, int] | None:
    extra = call.config["output_padding"]
    if extra is None:
        return None
    height, width = _pair(extra)
    if stride == call.config["strides"][0] and call.rule.kernel == "height":
        return height, height, width
    if stride == 1:
        return 0, height, width
    raise RefusedError(
        "output_padding has no meaning for a depth stride of its own.",
        "Let its depth kernel and stride follow height, or take stride 1.",
    )


def _transposed_inexact(padding: str, taps: int, stride: int) -> str:
    if padding == "same" or taps == stride:
        return ""
    return "the first and last slices of a 'valid' transposed convolution get less than the whole kernel"


def _depth_crop(call: LayerCall, crop: tuple[int, int]) -> Extra:
    config = {
        "name": f"{call.config['name']}_depth_crop",
        "cropping": (crop, (0, 0), (0, 0)),
        **dtype_of(call),
    }
    return Extra(keras.layers.Cropping3D, config)


def _reduced(flow: Flow, depth: float, height: float) -> tuple[float, float]:
    return flow.reduction[0] * depth, flow.reduction[1] * height


def _describe(changes: Mapping[str, Any], padding: str) -> str:
    text = "x".join(str(size) for size in changes["kernel_size"])
    if len(changes["kernel_size"]) == 2:
        text = f"acs {text}"
    if set(changes["strides"]) != {1}:
        text += " /" + "x".join(str(size) for size in changes["strides"])
    if set(changes["dilation_rate"]) != {1}:
        text += " d" + "x".join(str(size) for size in changes["dilation_rate"])
    return f"{text} {padding}"


def _pair(value: Value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
