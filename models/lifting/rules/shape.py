"""Rules for layers that pad, crop, flatten or reshape."""

import math
from collections.abc import Sequence

import keras

from models.lifting.errors import RefusedError
from models.lifting.flow import VOLUME_AXES, Flow, Shape, plain_axes, plain_flow
from models.lifting.rules.base import Follower, LayerCall, Lifted, keep, spatial_output
from models.lifting.rules.kernels import depth_taps
from models.lifting.windows import dilated, same_padding, split_padding


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


def lift_flatten(call: LayerCall) -> Lifted:
    """Return Flatten; behind it every feature of a slice stands once per slice.

    Raises:
        RefusedError: The number of slices is unknown, or the weights behind it belong to another size.
    """
    if not call.flow.is_volume:
        return keep_reshape(call) if call.flow.is_plain else keep(call)
    return Lifted(keras.layers.Flatten, call.config, (_flattened(call),), note=_flatten_note(call))


def lift_reshape(call: LayerCall) -> Lifted:
    """Return Reshape for (1, 1, C), for (C,) behind a global pool, and for what amounts to Flatten.

    Raises:
        RefusedError: The reshape has no meaning with one axis more.
    """
    flow, target = call.flow, tuple(call.config["target_shape"])
    shape_2d = call.shapes_2d[0]
    if flow.is_plain and len(shape_2d) == 4 and shape_2d[1:3] == (1, 1):
        output = Flow(VOLUME_AXES, (flow.shape[0], 1, 1, 1, shape_2d[-1]), shape_2d, is_global=True)
        return Lifted(
            type(call.layer),
            {**call.config, "target_shape": (1, *target)},
            (output.become(is_nonnegative=flow.is_nonnegative),),
        )
    if flow.is_plain and len(shape_2d) < 4:
        return keep_reshape(call)
    if flow.is_volume and len(shape_2d) == 4 and shape_2d[1:3] == (1, 1) and flow.shape[1:4] == (1, 1, 1):
        config = {**call.config, "target_shape": (1, *target)}
        return Lifted(type(call.layer), config, (flow.become(shape_2d=shape_2d),))
    if flow.is_volume and len(shape_2d) == 2:
        output = _flattened(call)
        return Lifted(
            type(call.layer), {**call.config, "target_shape": (-1,)}, (output,), note=_flatten_note(call)
        )
    if _regroups_channels(flow, shape_2d):
        return _regroup_channels(call)
    raise RefusedError(
        f"{flow.shape_2d[1:]} to {target} has no meaning with one axis more.",
        "Only (1, 1, C), (C,) behind a global pool, (-1,), and channels parted or joined again do; "
        "use Flatten or a global pool.",
    )


def lift_permute(call: LayerCall) -> Lifted:
    """Return Permute of parted channels, depth behind the batch; a channel shuffle does that.

    Raises:
        RefusedError: It moves height or width.
    """
    flow, dims = call.flow, tuple(call.config["dims"])
    if "D" not in flow.axes:
        return Lifted(type(call.layer), call.config, (plain_flow(call.shapes_2d[0]),))
    if dims[:2] != (1, 2) or not flow.axes.startswith("BDHW"):
        raise RefusedError(
            f"it moves height or width (dims={dims}), and depth would have to move with them or not.",
            "Leave height and width in their places, or register a rule of your own with register_lift_rule.",
        )
    places, output = transposed(call, (0, *dims))
    return Lifted(type(call.layer), {**call.config, "dims": tuple(places[1:])}, (output,))


def transposed(call: LayerCall, order: Sequence[int]) -> tuple[list[int], Flow]:
    """Return the order of axes in 3D, depth behind the batch, and the tensor that it gives.

    Args:
        call: The layer or operation where it is called.
        order: Of the axes in 2D, batch included.

    Raises:
        RefusedError: The batch does not stay first.
    """
    flow, axes_2d = call.flow, call.flow.axes.replace("D", "")
    moved = [axes_2d[number] for number in order]
    if moved[0] != "B":
        raise RefusedError("it moves the batch axis.")
    moved.insert(1, "D")
    places = [flow.axes.index(label) for label in moved]
    shape = tuple(flow.shape[place] for place in places)
    return places, flow.become(axes="".join(moved), shape=shape, shape_2d=call.shapes_2d[0])


def _regroups_channels(flow: Flow, shape_2d: Shape) -> bool:
    """Return whether a reshape leaves the plane and only parts the channels, or joins parts again."""
    is_in_plane = shape_2d[1:3] == flow.shape_2d[1:3] and len(flow.shape_2d) > 3
    return flow.axes.startswith("BDHW") and is_in_plane and len(shape_2d) > 3


def _regroup_channels(call: LayerCall) -> Lifted:
    flow, shape_2d = call.flow, call.shapes_2d[0]
    parts = shape_2d[3:]
    space = [-1 if size is None else size for size in flow.shape[1:4]]
    if None in parts or space.count(-1) > 1:
        raise RefusedError(
            "it parts channels of an image of unknown size.", "Build the 2D network for one size of images."
        )
    axes = "BDHW" + ("C" if len(parts) == 1 else "pqrstuv"[: len(parts)])
    output = flow.become(axes=axes, shape=(*flow.shape[:4], *parts), shape_2d=shape_2d)
    config = {"name": call.config["name"], "target_shape": (*space, *parts)}
    dtype = {"dtype": call.config["dtype"]} if "dtype" in call.config else {}
    return Lifted(
        keras.layers.Reshape, {**config, **dtype}, (output.become(is_nonnegative=flow.is_nonnegative),)
    )


def keep_reshape(call: LayerCall) -> Lifted:
    """Return the layer as it is, for tensors without a place in space."""
    flow, shape_2d = call.flow, call.shapes_2d[0]
    output = flow.become(axes=plain_axes(shape_2d), shape=(flow.shape[0], *shape_2d[1:]), shape_2d=shape_2d)
    return Lifted(type(call.layer), call.config, (output,))


def _flattened(call: LayerCall) -> Flow:
    flow = call.volume()
    # The depth axis comes first, so that a slice's features stay side by side: [D * (H * W * C)].
    features, in_slice = _product(flow.shape[1:]), _product(flow.shape_2d[1:])
    if flow.depth is None:
        raise RefusedError(
            "an unknown number of slices gives an unknown number of features.",
            "Lift with a fixed depth, or put a global pool in the place of Flatten.",
        )
    is_resized = flow.shape[2:] != flow.shape_2d[1:]
    if is_resized and call.scheme != "random":
        raise RefusedError(
            f"the weights behind it belong to {in_slice} features per slice, and height and width "
            f"{flow.shape[2:4]} give others.",
            "Keep the 2D network's height and width, take init='random', or put a global pool in its place.",
        )
    repeats = None if is_resized else flow.depth
    return flow.become(
        axes="BC", shape=(flow.shape[0], features), shape_2d=call.shapes_2d[0], repeats=repeats
    )


def _flatten_note(call: LayerCall) -> str:
    if call.flow.depth == 1:
        return ""
    return (
        f"{call.flow.depth} times the features and parameters in the layer behind it "
        "(a global pool would keep them); equal to the mean over slices only where slices are equal"
    )


def _product(sizes: tuple[int | None, ...]) -> int | None:
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


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
