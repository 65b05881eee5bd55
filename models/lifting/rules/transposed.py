"""The rule for transposed convolutions."""

from typing import Any

import keras

from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.inflate import inflate_transposed
from voxlift.models.lifting.rules.base import ExtraLayer, LayerCall, Lifted, weight_transfer
from voxlift.models.lifting.rules.results import dtype_setting, spatial_output
from voxlift.models.lifting.rules.windows import (
    depth_upsampling,
    describe_kernel,
    dilated,
    downsampled,
    inflation_scheme,
    move_weight_axes,
    odd_if_dilated,
    pair,
    require_stride_or_dilation,
    split_padding,
    transposed_output,
)
from voxlift.models.lifting.types import Weights

INEXACT = "the first and last slices of a 'valid' transposed convolution receive only part of its kernel"


def lift_transposed(call: LayerCall) -> Lifted:
    """Return Conv3DTranspose for Conv2DTranspose.

    Raises:
        UnsupportedError: It has output_padding, and a depth stride other than the stride along height.
    """
    changes, results = _lift_window(call)
    taps, stride = changes["kernel_size"][0], changes["strides"][0]

    def transfer(weights: Weights) -> Weights:
        return [inflate_transposed(weights[0], taps, inflation_scheme(call), stride=stride), *weights[1:]]

    return Lifted(
        keras.layers.Conv3DTranspose,
        {**call.config, **changes, **move_weight_axes(call.config, "kernel")},
        weight_shapes=((taps, *call.weight_shapes[0]), *call.weight_shapes[1:]),
        **results,
        **weight_transfer(call, transfer, f"inflated, {inflation_scheme(call)}"),
    )


def _lift_window(call: LayerCall) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the changes of the configuration, and other fields of `Lifted`."""
    spec, config = call.require_volume(), call.config
    height = config["strides"][0]
    wanted = call.depth_rule.stride_for(height)
    stride = wanted if height == 1 else depth_upsampling(spec, wanted, height)
    dilation = config["dilation_rate"][0] if stride == 1 else 1
    extra, taps = _output_padding(call, stride), _depth_taps(call, stride, dilation)
    sizes = _output_sizes(call, (taps, stride, dilation, None if extra is None else extra[0]))
    is_cropped = _keeps_depth(call, stride) and config["padding"] == "valid" and taps > 1
    output = spatial_output(call, (spec.depth, *sizes[1:]) if is_cropped else sizes)
    changes = {
        "kernel_size": (taps, *config["kernel_size"]),
        "strides": (stride, *config["strides"]),
        "dilation_rate": (dilation, *config["dilation_rate"]),
        "output_padding": extra,
    }
    require_stride_or_dilation(changes)
    is_exact = is_cropped or config["padding"] == "same" or (taps == stride and not (extra and extra[0]))
    results = {
        "outputs": (output.replace(downsampling=downsampled(spec, 1 / stride, 1 / height)),),
        "after": (_depth_cropping_layer(call, taps, dilation),) if is_cropped else (),
        "window": describe_kernel(changes, config["padding"]),
        "inexact": "" if is_exact else INEXACT,
    }
    return changes, results


def _depth_taps(call: LayerCall, stride: int, dilation: int) -> int:
    """Return the taps along depth: at least the stride, since fewer taps would leave gaps."""
    taps = max(odd_if_dilated(call.depth_rule.kernel_for(call.config["kernel_size"][0]), dilation), stride)
    is_padded = call.config["padding"] == "same" and call.config["output_padding"] is not None
    # With output_padding and an even number of taps, `same` returns one slice less than it reads.
    return taps + 1 if is_padded and taps % 2 == 0 and _keeps_depth(call, stride) else taps


def _keeps_depth(call: LayerCall, stride: int) -> bool:
    """Return whether the number of slices is kept: by the policy, or because only height is upsampled."""
    return stride == 1 and (call.depth_rule.keeps_depth or call.config["strides"][0] > 1)


def _output_sizes(call: LayerCall, depth: tuple[int, int, int, int | None]) -> tuple[int | None, ...]:
    """Return the sides of the output, from (taps, stride, dilation, output_padding) along depth."""
    config, spec = call.config, call.spec
    extra = pair(config["output_padding"]) if config["output_padding"] is not None else (None, None)
    in_plane = zip(config["kernel_size"], config["strides"], config["dilation_rate"], extra, strict=True)
    return tuple(
        transposed_output(
            size, window, stride=stride, padding=config["padding"], dilation=dilation, extra=added
        )
        for size, (window, stride, dilation, added) in zip(spec.shape[1:4], (depth, *in_plane), strict=True)
    )


def _output_padding(call: LayerCall, stride: int) -> tuple[int, int, int] | None:
    extra = call.config["output_padding"]
    if extra is None:
        return None
    height, width = pair(extra)
    if stride == call.config["strides"][0] and call.depth_rule.kernel == "height":
        return height, height, width
    if stride == 1:
        return 0, height, width
    raise UnsupportedError(
        "output_padding is not defined for a depth stride other than the stride along height.",
        "Let its depth kernel and stride follow height, or use the depth stride 1.",
    )


def _depth_cropping_layer(call: LayerCall, taps: int, dilation: int) -> ExtraLayer:
    crop = split_padding(dilated(taps, dilation) - 1)
    config = {
        "name": f"{call.config['name']}_depth_crop",
        "cropping": (crop, (0, 0), (0, 0)),
        **dtype_setting(call),
    }
    return ExtraLayer(keras.layers.Cropping3D, config)
