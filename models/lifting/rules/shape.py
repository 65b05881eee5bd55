"""Rules for layers that flatten, reshape or move axes."""

import math
from collections.abc import Sequence

import keras

from voxlift.models.lifting.errors import RefusedError
from voxlift.models.lifting.flow import VOLUME_AXES, Flow, Shape, plain_axes, plain_flow
from voxlift.models.lifting.rules.answers import keep
from voxlift.models.lifting.rules.base import LayerCall, Lifted


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
