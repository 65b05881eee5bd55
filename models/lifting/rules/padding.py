"""Rules for padding and cropping; along depth a padding gives what the layers behind it need."""

import keras

from voxlift.models.lifting.flow import Flow
from voxlift.models.lifting.rules.answers import spatial_output
from voxlift.models.lifting.rules.base import Follower, LayerCall, Lifted
from voxlift.models.lifting.rules.kernels import depth_taps
from voxlift.models.lifting.windows import dilated, same_padding, split_padding


def lift_zero_padding(call: LayerCall) -> Lifted:
    """Return ZeroPadding3D: along depth, what the layer behind it needs for the policy's depth."""
    flow = call.volume()
    rows, columns = call.config["padding"]
    front, back = _depth_padding(call, flow)
    sizes = (
        None if flow.depth is None else flow.depth + front + back,
        *(
            None if size is None else size + sum(pad)
            for size, pad in zip(flow.shape[2:4], (rows, columns), strict=True)
        ),
    )
    given = flow.depth_padding
    # What no window reads as padding counts as slices of the volume, which are not what 2D has there.
    total = (given[0] + front, given[1] + back) if call.next_windows else (0, 0)
    output = spatial_output(call, sizes).become(depth_padding=total, is_nonnegative=flow.is_nonnegative)
    padding = ((front, back), tuple(rows), tuple(columns))
    config = {**call.config, "padding": padding}
    window = ", ".join(f"{first}+{last}" for first, last in padding)
    return Lifted(
        keras.layers.ZeroPadding3D, config, (output,), window=window, inexact=_no_window(call, front + back)
    )


def lift_cropping(call: LayerCall) -> Lifted:
    """Return Cropping3D, which leaves depth whole."""
    flow = call.volume()
    rows, columns = call.config["cropping"]
    sizes = (
        flow.depth,
        *(
            None if size is None else size - sum(crop)
            for size, crop in zip(flow.shape[2:4], (rows, columns), strict=True)
        ),
    )
    output = spatial_output(call, sizes).become(
        is_nonnegative=flow.is_nonnegative, depth_padding=flow.depth_padding
    )
    config = {**call.config, "cropping": ((0, 0), tuple(rows), tuple(columns))}
    return Lifted(keras.layers.Cropping3D, config, (output,))


def _depth_padding(call: LayerCall, flow: Flow) -> tuple[int, int]:
    """Return the slices of zeros to set in front and behind."""
    needs = [_need(call, follower, flow) for follower in call.next_windows]
    if not needs:
        rows = call.config["padding"][0]
        return tuple(rows) if call.rule.stride == call.rule.pool == "height" else (0, 0)
    # Several readers: what all of them can use; a convolution adds the rest itself.
    return min(need[0] for need in needs), min(need[1] for need in needs)


def _need(call: LayerCall, follower: Follower, flow: Flow) -> tuple[int, int]:
    """Return the slices of zeros that one layer behind the padding wants along depth."""
    rows, config, rule = tuple(call.config["padding"][0]), follower.config, follower.rule
    if follower.is_pool:
        window, stride, dilation = rule.pool_for(config["pool_size"][0]), _pool_stride(follower), 1
        follows_height = rule.pool == "height"
    else:
        window, dilation = depth_taps(config, rule)
        stride = rule.stride_for(config["strides"][0])
        follows_height = rule.kernel == rule.stride == "height"
    if window == 1:
        return 0, 0
    if not follower.is_pool and rule.keeps_depth and config["padding"] == "valid":
        return split_padding(dilated(window, dilation) - 1)
    if config["padding"] != "valid" or not follows_height:
        return rows if follows_height else (0, 0)
    # (0, 1) is SAME written out for an even height: depth has its own parity.
    return rows if rows[0] == rows[1] else same_padding(flow.depth, window, stride=stride, dilation=dilation)


def _pool_stride(follower: Follower) -> int:
    return follower.rule.pool_for((follower.config["strides"] or follower.config["pool_size"])[0])


def _no_window(call: LayerCall, total: int) -> str:
    return "slices of zeros stay in its output" if total and not call.next_windows else ""
