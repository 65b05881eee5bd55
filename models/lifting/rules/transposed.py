"""The rule for transposed convolutions."""

from typing import Any

import keras

from voxlift.models.lifting.errors import RefusedError
from voxlift.models.lifting.inflate import inflate_transposed
from voxlift.models.lifting.rules.answers import dtype_of, spatial_output, weights_of
from voxlift.models.lifting.rules.base import Extra, LayerCall, Lifted, Weights
from voxlift.models.lifting.rules.kernels import (
    depth_growth,
    describe,
    fix_constraint,
    odd_if_dilated,
    pair,
    reduced,
    refuse_dilated_steps,
    scheme_of,
)
from voxlift.models.lifting.windows import dilated, split_padding, transposed_output

INEXACT = "the first and last slices of a 'valid' transposed convolution get less than the whole kernel"


def lift_transposed(call: LayerCall) -> Lifted:
    """Return Conv3DTranspose for Conv2DTranspose.

    Raises:
        RefusedError: It has output_padding, and a depth stride of its own.
    """
    config, changes, facts = call.config, *_window(call)
    taps, stride = changes["kernel_size"][0], changes["strides"][0]

    def transfer(weights: Weights) -> Weights:
        return [inflate_transposed(weights[0], taps, scheme_of(call), stride=stride), *weights[1:]]

    return Lifted(
        keras.layers.Conv3DTranspose,
        {**config, **fix_constraint(config, changes, "kernel")},
        weight_shapes=((taps, *call.weight_shapes[0]), *call.weight_shapes[1:]),
        **facts,
        **weights_of(call, transfer, f"inflated, {scheme_of(call)}"),
    )


def _window(call: LayerCall) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what changes in the configuration, and the other facts of a transposed convolution."""
    flow, config = call.volume(), call.config
    height = config["strides"][0]
    wanted = call.rule.stride_for(height)
    stride = wanted if height == 1 else depth_growth(flow, wanted, height)
    dilation = config["dilation_rate"][0] if stride == 1 else 1
    extra, taps = _output_padding(call, stride), _depth_taps(call, stride, dilation)
    sizes = _transposed_sizes(call, (taps, stride, dilation, None if extra is None else extra[0]))
    is_cropped = _keeps_depth(call, stride) and config["padding"] == "valid" and taps > 1
    output = spatial_output(call, (flow.depth, *sizes[1:]) if is_cropped else sizes)
    changes = {
        "kernel_size": (taps, *config["kernel_size"]),
        "strides": (stride, *config["strides"]),
        "dilation_rate": (dilation, *config["dilation_rate"]),
        "output_padding": extra,
    }
    refuse_dilated_steps(changes)
    reaches_all = config["padding"] == "same" or (taps == stride and not (extra and extra[0]))
    facts = {
        "outputs": (output.become(reduction=reduced(flow, 1 / stride, 1 / config["strides"][0])),),
        "after": (_depth_crop(call, split_padding(dilated(taps, dilation) - 1)),) if is_cropped else (),
        "window": describe(changes, config["padding"]),
        "inexact": "" if is_cropped or reaches_all else INEXACT,
    }
    return changes, facts


def _depth_taps(call: LayerCall, stride: int, dilation: int) -> int:
    """Return the taps along depth: as many as the stride at least, or no kernel would reach some slices."""
    taps = max(odd_if_dilated(call.rule.kernel_for(call.config["kernel_size"][0]), dilation), stride)
    is_padded = call.config["padding"] == "same" and call.config["output_padding"] is not None
    # With output_padding, `same` gives one slice less than it takes where the taps are even.
    return taps + 1 if is_padded and taps % 2 == 0 and _keeps_depth(call, stride) else taps


def _keeps_depth(call: LayerCall, stride: int) -> bool:
    """Return whether as many slices come out as go in: by policy, or because only height grows."""
    return stride == 1 and (call.rule.keeps_depth or call.config["strides"][0] > 1)


def _transposed_sizes(call: LayerCall, depth: tuple[int, int, int, int | None]) -> tuple[int | None, ...]:
    config, flow = call.config, call.flow
    extra = pair(config["output_padding"]) if config["output_padding"] is not None else (None, None)
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
    height, width = pair(extra)
    if stride == call.config["strides"][0] and call.rule.kernel == "height":
        return height, height, width
    if stride == 1:
        return 0, height, width
    raise RefusedError(
        "output_padding has no meaning for a depth stride of its own.",
        "Let its depth kernel and stride follow height, or take stride 1.",
    )


def _depth_crop(call: LayerCall, crop: tuple[int, int]) -> Extra:
    config = {
        "name": f"{call.config['name']}_depth_crop",
        "cropping": (crop, (0, 0), (0, 0)),
        **dtype_of(call),
    }
    return Extra(keras.layers.Cropping3D, config)
