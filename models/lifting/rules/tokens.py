"""Rules for layers that read the tokens of a volume: merges, pools, reshapes, and raw operations."""

import math
from typing import Any

import keras

from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.rules.base import LayerCall, Lifted, LiftRule
from voxlift.models.lifting.rules.indexing import one_per_axis
from voxlift.models.lifting.rules.merging import lift_merge
from voxlift.models.lifting.rules.operations import POINTWISE, lift_pointwise
from voxlift.models.lifting.rules.results import as_list
from voxlift.models.lifting.types import VOLUME_AXES, Layer, TensorSpec, TokenLayout, plain_spec

PREFIX_FIX = "Select the class token (x[:, 0]), or drop the prefix tokens first (x[:, 1:])."
UNEQUAL_SHARE = "prefix tokens have a smaller share among the tokens of several planes"


def find_token_operation_rule(operation: Layer) -> LiftRule | None:
    """Return the rule for a raw operation of `keras.ops` on tokens, by the name of its class."""
    kind = type(operation)
    if not kind.__module__.startswith("keras.") or ".ops." not in kind.__module__:
        return None
    by_name: dict[str, LiftRule] = {
        "GetItem": lift_token_selection,
        "Mean": lift_token_reduction,
        "Max": lift_token_reduction,
        "Reshape": lift_token_reshape,
        "Concatenate": lift_token_concatenate,
    }
    return lift_token_pointwise if kind.__name__ in POINTWISE else by_name.get(kind.__name__)


def layout_of(spec: TensorSpec) -> TokenLayout:
    """Return the order of the tokens of a tensor.

    Raises:
        UnsupportedError: It is not the tokens of a volume.
    """
    if spec.tokens is None:
        raise UnsupportedError(f"expected the tokens of a volume, received axes {spec.axes}.")
    return spec.tokens


def lift_token_merge(call: LayerCall) -> Lifted:
    """Return the same merge of tokens.

    Raises:
        UnsupportedError: Its inputs are not tokens of the same volume in the same order.
    """
    _require_same_layout(call)
    return lift_merge(call)


def lift_token_pointwise(call: LayerCall) -> Lifted:
    """Return the same operation on tokens; a constant may have one value per channel, not per token.

    Raises:
        UnsupportedError: Inputs or constants do not fit the tokens of a volume.
    """
    _require_same_layout(call)
    return lift_pointwise(call)


def _require_same_layout(call: LayerCall) -> None:
    if len({spec.tokens for spec in call.inputs}) > 1:
        raise UnsupportedError(
            "it merges tokens of a volume with tensors that are not such tokens, or other prefix tokens.",
            "Merge tokens of the same volume.",
        )


def lift_token_concatenate(call: LayerCall) -> Lifted:
    """Return Concatenate of channels, or of prefix tokens and the tokens of a volume.

    Raises:
        UnsupportedError: Anything else.
    """
    *first, last = call.inputs
    if call.config["axis"] in (-1, 2):
        _require_same_layout(call)
        return Lifted(type(call.layer), call.config, (_with_channels(last, call),))
    layout = layout_of(last)
    sizes = [spec.shape[1] for spec in first]
    if not all(spec.is_plain for spec in first) or None in sizes or layout.prefix:
        raise UnsupportedError(
            "it concatenates the tokens of several volumes, or tokens after those of a volume.",
            "Concatenate prefix tokens before the tokens of one volume.",
        )
    prefix = sum(size for size in sizes if size is not None)
    count = None if last.shape[1] is None else last.shape[1] + prefix
    output = last.replace(
        shape=(last.shape[0], count, last.channels),
        shape_2d=call.shapes_2d[0],
        tokens=TokenLayout(layout.planes, prefix),
    )
    return Lifted(type(call.layer), call.config, (output,))


def _with_channels(spec: TensorSpec, call: LayerCall) -> TensorSpec:
    shape_2d = call.shapes_2d[0]
    return spec.replace(shape=(*spec.shape[:-1], shape_2d[-1]), shape_2d=shape_2d, is_nonnegative=False)


def lift_token_pooling(call: LayerCall) -> Lifted:
    """Return the same global pooling of tokens; a mean with prefix tokens is inexact."""
    is_mean = isinstance(call.layer, keras.layers.GlobalAveragePooling1D)
    return _pooled(call, is_mean=is_mean)


def lift_token_reduction(call: LayerCall) -> Lifted:
    """Return the same mean or maximum over all tokens, or over channels.

    Raises:
        UnsupportedError: It reduces the batch, or tokens and channels together.
    """
    axes = (
        {axis % 3 for axis in as_list(call.config.get("axis"))} if call.config.get("axis") is not None else {}
    )
    if axes == {1}:
        return _pooled(call, is_mean=type(call.layer).__name__ == "Mean")
    if axes == {2} and call.config.get("keepdims"):
        return Lifted(type(call.layer), call.config, (_with_channels(call.spec, call),))
    raise UnsupportedError(
        "it reduces other axes than the tokens (1), or the channels (2) with keepdims.", "Use axis=1."
    )


def _pooled(call: LayerCall, *, is_mean: bool) -> Lifted:
    layout = layout_of(call.spec)
    is_unequal = is_mean and layout.prefix and layout.planes > 1
    output = plain_spec(call.shapes_2d[0])
    return Lifted(type(call.layer), call.config, (output,), inexact=UNEQUAL_SHARE if is_unequal else "")


def lift_token_selection(call: LayerCall) -> Lifted:
    """Return the same selection of prefix tokens, or the tokens without some prefix tokens.

    Raises:
        UnsupportedError: It selects single tokens of a plane, or some of the batch or channels.
    """
    layout = layout_of(call.spec)
    key = call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    entries = one_per_axis(list(key) if isinstance(key, tuple | list) else [key], 3)
    batch, place, channels = entries
    if batch != slice(None) or channels != slice(None):
        raise UnsupportedError("it selects some of the batch or of the channels of tokens.", PREFIX_FIX)
    if isinstance(place, int):
        return Lifted(type(call.layer), call.config, (_prefix_tokens(call, place, place + 1),))
    start, stop, step = place.start or 0, place.stop, place.step or 1
    if step != 1:
        raise UnsupportedError("it selects every other token.", PREFIX_FIX)
    if stop is not None:
        return Lifted(type(call.layer), call.config, (_prefix_tokens(call, start, stop),))
    if not 0 <= start <= layout.prefix:
        raise UnsupportedError("it selects some tokens of a plane.", PREFIX_FIX)
    count = call.spec.shape[1]
    output = call.spec.replace(
        shape=(call.spec.shape[0], None if count is None else count - start, call.spec.channels),
        shape_2d=call.shapes_2d[0],
        tokens=TokenLayout(layout.planes, layout.prefix - start),
    )
    return Lifted(type(call.layer), call.config, (output,))


def _prefix_tokens(call: LayerCall, start: int, stop: int) -> TensorSpec:
    prefix = layout_of(call.spec).prefix
    if not 0 <= start < stop <= prefix:
        raise UnsupportedError(
            f"it selects tokens {start} to {stop - 1}, expected some of the {prefix} prefix tokens.",
            PREFIX_FIX,
        )
    return plain_spec(call.shapes_2d[0])


def lift_token_reshape(call: LayerCall) -> Lifted:
    """Return a Reshape of tokens to the volume, for a reshape to the image in 2D.

    Raises:
        UnsupportedError: There are prefix tokens, or the target is no image.
    """
    spec, shape_2d, layout = call.spec, call.shapes_2d[0], layout_of(call.spec)
    per_plane = None if spec.shape[1] is None else spec.shape[1] // layout.planes
    is_image = (
        len(shape_2d) == 4 and None not in shape_2d[1:] and per_plane == math.prod(_sizes(shape_2d[1:3]))
    )
    if layout.prefix or not is_image or shape_2d[-1] != spec.channels:
        raise UnsupportedError(
            f"a reshape of tokens to {shape_2d[1:]} is not defined with several planes.",
            "Reshape tokens without prefix tokens to (height, width, channels).",
        )
    target = (layout.planes, *shape_2d[1:])
    output = spec.replace(axes=VOLUME_AXES, shape=(spec.shape[0], *target), shape_2d=shape_2d, tokens=None)
    config: dict[str, Any] = {"name": call.layer.name, "target_shape": target}
    config |= {"dtype": call.config["dtype"]} if "dtype" in call.config else {}
    return Lifted(keras.layers.Reshape, config, (output,), call_args=(call.tensors[0],), call_kwargs={})


def _sizes(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(size or 0 for size in shape)
