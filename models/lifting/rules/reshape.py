"""Rules for layers that reshape tensors or permute axes."""

from collections.abc import Sequence

import keras

from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.rules.base import LayerCall, Lifted
from voxlift.models.lifting.rules.dense import flatten_note, flattened, keep_plain_reshape
from voxlift.models.lifting.rules.patches import PART_AXES, lift_patch_reshape
from voxlift.models.lifting.rules.results import dtype_setting
from voxlift.models.lifting.types import VOLUME_AXES, Shape, TensorSpec, TokenLayout, plain_spec


def lift_reshape(call: LayerCall) -> Lifted:
    """Return Reshape for (1, 1, C), for (C,) after a global pool, for a flattening, and for split channels.

    Raises:
        UnsupportedError: The reshape is not defined with a depth axis.
    """
    spec, shape_2d = call.spec, call.shapes_2d[0]
    target = tuple(call.config["target_shape"])
    becomes_pixel = is_single_pixel(shape_2d)
    if becomes_pixel and (spec.is_plain or (spec.is_volume and spec.shape[1:4] == (1, 1, 1))):
        output = single_voxel(call) if spec.is_plain else spec.replace(shape_2d=shape_2d)
        return Lifted(type(call.layer), {**call.config, "target_shape": (1, *target)}, (output,))
    if spec.is_plain and len(shape_2d) < 4:
        return keep_plain_reshape(call)
    if spec.is_volume and len(shape_2d) == 2:
        config = {**call.config, "target_shape": (-1,)}
        return Lifted(type(call.layer), config, (flattened(call),), note=flatten_note(call))
    if spec.is_volume and is_token_sequence(spec.shape_2d, shape_2d):
        return _reshape_to_tokens(call)
    keeps_plane = shape_2d[1:3] == spec.shape_2d[1:3] and len(spec.shape_2d) > 3
    if spec.axes.startswith("BDHW") and keeps_plane and len(shape_2d) > 3:
        return _reshape_channels(call)
    lifted = lift_patch_reshape(call) if "D" in spec.axes else None
    if lifted is None:
        raise UnsupportedError(
            f"a reshape of {spec.shape_2d[1:]} to {target} is not defined with a depth axis.",
            "Supported targets are (1, 1, C), (C,) after a global pool, (-1,), one token per position "
            "(-1, C), channels split or merged, and rows and columns cut into patches; use Flatten or a "
            "global pooling layer.",
        )
    return lifted


def is_token_sequence(image: Shape, shape_2d: Shape) -> bool:
    """Return whether a 2D tensor has one token [B, H * W, C] per position of an image [B, H, W, C]."""
    if len(shape_2d) != 3 or len(image) != 4 or shape_2d[-1] != image[-1]:
        return False
    height, width = image[1:3]
    return shape_2d[1] == (None if height is None or width is None else height * width)


def _reshape_to_tokens(call: LayerCall) -> Lifted:
    """Return a Reshape to the tokens of a volume, one plane after the other."""
    spec = call.spec
    if spec.depth is None:
        raise UnsupportedError(
            "the tokens of a volume need a known number of slices.", "Lift with a fixed depth."
        )
    height, width = spec.shape[2:4]
    count = None if height is None or width is None else spec.depth * height * width
    output = spec.replace(
        axes="BTC",
        shape=(spec.shape[0], count, spec.channels),
        shape_2d=call.shapes_2d[0],
        is_global=False,
        tokens=TokenLayout(spec.depth, 0, spec.shape[2:4], spec.shape_2d[1:3]),
    )
    config = {**call.config, "target_shape": (-1 if count is None else count, spec.channels)}
    return Lifted(type(call.layer), config, (output,), note=f"{spec.depth} planes of tokens")


def is_single_pixel(shape_2d: Shape) -> bool:
    """Return whether a 2D tensor is an image of one pixel [B, 1, 1, C]."""
    return len(shape_2d) == 4 and shape_2d[1:3] == (1, 1)


def single_voxel(call: LayerCall) -> TensorSpec:
    """Return the volume of one voxel [B, 1, 1, 1, C] that a layer makes of a vector.

    Args:
        call: The layer, whose 2D output is a single pixel.
    """
    spec, shape_2d = call.spec, call.shapes_2d[0]
    shape = (spec.shape[0], 1, 1, 1, shape_2d[-1])
    return TensorSpec(VOLUME_AXES, shape, shape_2d, spec.is_nonnegative, is_global=True)


def _reshape_channels(call: LayerCall) -> Lifted:
    """Return a Reshape that splits the channels, or merges parts again; the spatial axes are kept."""
    spec, shape_2d = call.spec, call.shapes_2d[0]
    parts = shape_2d[3:]
    sides = [-1 if size is None else size for size in spec.shape[1:4]]
    if None in parts or sides.count(-1) > 1:
        raise UnsupportedError(
            "it splits the channels of an image of unknown size.",
            "Build the 2D network with a fixed height and width.",
        )
    axes = "BDHW" + ("C" if len(parts) == 1 else PART_AXES[: len(parts)])
    output = spec.replace(
        axes=axes,
        shape=(*spec.shape[:4], *parts),
        shape_2d=shape_2d,
        is_nonnegative=spec.is_nonnegative,
    )
    config = {"name": call.config["name"], "target_shape": (*sides, *parts), **dtype_setting(call)}
    return Lifted(keras.layers.Reshape, config, (output,))


def lift_permute(call: LayerCall) -> Lifted:
    """Return Permute of split channels, as in a channel shuffle, or of patches; depth stays after the batch.

    Raises:
        UnsupportedError: It moves height or width.
    """
    spec, dims = call.spec, tuple(call.config["dims"])
    if "D" not in spec.axes:
        return Lifted(type(call.layer), call.config, (plain_spec(call.shapes_2d[0]),))
    is_cut = bool(set(spec.axes) & set(PART_AXES))
    if not is_cut and dims[:2] != (1, 2):
        raise UnsupportedError(
            f"it moves height or width (dims={dims}); the position of depth is not defined then.",
            "Keep height and width in place, or register your own rule with register_lift_rule.",
        )
    order, output = transpose_axes(call, (0, *dims))
    return Lifted(type(call.layer), {**call.config, "dims": tuple(order[1:])}, (output,))


def transpose_axes(call: LayerCall, order_2d: Sequence[int]) -> tuple[list[int], TensorSpec]:
    """Return the order of axes in 3D, depth after the batch, and the transposed tensor.

    Args:
        call: The layer or operation where it is called.
        order_2d: Order of the axes in 2D, including the batch.

    Raises:
        UnsupportedError: The batch axis is moved.
    """
    spec = call.spec
    labels = [spec.axes_2d[number] for number in order_2d]
    if labels[0] != "B":
        raise UnsupportedError("it moves the batch axis.")
    labels.insert(1, "D")
    order = [spec.axes.index(label) for label in labels]
    shape = tuple(spec.shape[index] for index in order)
    return order, spec.replace(axes="".join(labels), shape=shape, shape_2d=call.shapes_2d[0])
