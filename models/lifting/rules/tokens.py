"""Rules for layers that read the tokens of a volume: merges, pools, reshapes, and raw operations.

Tokens are [B, T, C], or [B, P, T, C] in groups, as those of the P places in the patches of an image. Raw
attention over tokens keeps its scale: a softmax over the tokens of all planes is multiplied by the number of
planes, and a sum over them is divided by it.
"""

from typing import Any

import keras

from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.rules.base import ExtraLayer, LayerCall, Lifted, LiftRule, keep_layer
from voxlift.models.lifting.rules.indexing import one_per_axis
from voxlift.models.lifting.rules.merging import lift_merge
from voxlift.models.lifting.rules.normalisation import lift_channel_normalisation
from voxlift.models.lifting.rules.operations import POINTWISE, lift_pointwise
from voxlift.models.lifting.rules.patches import lift_patch_reshape
from voxlift.models.lifting.rules.results import as_list
from voxlift.models.lifting.types import Layer, TensorSpec, TokenLayout, plain_spec

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
        "Sum": lift_token_reduction,
        "Softmax": lift_token_softmax,
        "Split": lift_token_split,
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


def require_ungrouped(spec: TensorSpec) -> TokenLayout:
    """Return the order of the tokens [B, T, C] of a volume.

    Raises:
        UnsupportedError: They are in groups, or there are none.
    """
    if spec.axes != "BTC":
        raise UnsupportedError(f"expected the tokens [B, T, C] of a volume, received axes {spec.axes}.")
    return layout_of(spec)


def lift_token_merge(call: LayerCall) -> Lifted:
    """Return the same merge of tokens, or of tokens and a single vector that is the same for all of them.

    Raises:
        UnsupportedError: Its inputs are not tokens of the same volume in the same order.
    """
    if _has_common_vector(call):
        return _merged(call)
    _require_same_layout(call)
    return lift_merge(call)


def lift_token_pointwise(call: LayerCall) -> Lifted:
    """Return the same operation on tokens; a constant may have one value per channel, not per token.

    Raises:
        UnsupportedError: Inputs or constants do not fit the tokens of a volume.
    """
    if _has_common_vector(call):
        return _merged(call)
    _require_same_layout(call)
    return lift_pointwise(call)


def _has_common_vector(call: LayerCall) -> bool:
    """Return whether a layer reads tokens and, beside them, tensors with one value for all tokens."""
    tokens = next(spec for spec in call.inputs if spec.tokens is not None)
    others = [spec for spec in call.inputs if spec.tokens is None]
    axis, rank = tokens.axes.index("T"), len(tokens.axes)
    return bool(others) and all(
        spec.is_plain and len(spec.shape) == rank and spec.shape[axis] == 1 for spec in others
    )


def _merged(call: LayerCall) -> Lifted:
    tokens = [spec for spec in call.inputs if spec.tokens is not None]
    if len({spec.tokens for spec in tokens}) > 1:
        _require_same_layout(call)
    return Lifted(type(call.layer), call.config, (_with_channels(tokens[0], call),))


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
    if call.config["axis"] in (-1, len(call.spec.axes) - 1):
        _require_same_layout(call)
        return Lifted(type(call.layer), call.config, (_with_channels(last, call),))
    layout = require_ungrouped(last)
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
        tokens=layout.with_prefix(prefix),
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
    """Return the same mean, maximum or sum over all tokens, or over channels.

    Raises:
        UnsupportedError: It reduces other axes.
    """
    labels = _labels(call)
    if labels == {"T"}:
        name = type(call.layer).__name__
        return _pooled(call, is_mean=name != "Max", is_sum=name == "Sum")
    if labels == {"C"} and call.config.get("keepdims"):
        return Lifted(type(call.layer), call.config, (_with_channels(call.spec, call),))
    raise UnsupportedError(
        "it reduces other axes than the tokens, or the channels with keepdims.",
        f"Use axis={call.spec.axes.index('T')}.",
    )


def _labels(call: LayerCall) -> set[str]:
    """Return the letters of the axes that an operation acts on; none for all of them."""
    axis = call.config.get("axis")
    return set() if axis is None else {call.spec.axes[number] for number in as_list(axis)}


def lift_token_softmax(call: LayerCall) -> Lifted:
    """Return the same softmax over channels, or over tokens with values as large as in 2D.

    Raises:
        UnsupportedError: It acts on other axes, or there are prefix tokens.
    """
    layout, labels = layout_of(call.spec), _labels(call)
    output = _with_channels(call.spec, call).replace(is_nonnegative=True)
    if labels == {"C"}:
        return Lifted(type(call.layer), call.config, (output,))
    if labels != {"T"} or layout.prefix:
        raise UnsupportedError(
            "its softmax is over other axes than the tokens or the channels, or over prefix tokens as well.",
            "Use MultiHeadAttention.",
        )
    return Lifted(type(call.layer), call.config, (output,), **_rescale(call, layout.planes))


def _rescale(call: LayerCall, scale: float) -> dict[str, Any]:
    """Return `after` and `note` of a result that is multiplied by a number."""
    if scale == 1:
        return {}
    dtype = call.config.get("dtype", keras.backend.standardize_dtype(call.tensors[0].dtype))
    config = {"name": f"{call.layer.name}_rescaling", "scale": scale, "offset": 0.0, "dtype": dtype}
    return {"after": (ExtraLayer(keras.layers.Rescaling, config),), "note": "its scale is that of one plane"}


def lift_token_split(call: LayerCall) -> Lifted:
    """Return the same split of the channels.

    Raises:
        UnsupportedError: It splits tokens.
    """
    if _labels(call) != {"C"}:
        raise UnsupportedError("it splits the tokens of a volume.", "Only channels can be split.")
    outputs = tuple(
        call.spec.replace(shape=(*call.spec.shape[:-1], shape_2d[-1]), shape_2d=shape_2d)
        for shape_2d in call.shapes_2d
    )
    return Lifted(type(call.layer), call.config, outputs)


def lift_token_convolution(call: LayerCall) -> Lifted:
    """Return the same convolution of 1x1 on groups of tokens, which acts on each token alone.

    Raises:
        UnsupportedError: Its kernel has several taps, or it skips tokens.
    """
    if call.spec.axes[2:] != "TC" or {*call.config["kernel_size"], *call.config["strides"]} != {1}:
        raise UnsupportedError(
            "a convolution over tokens is not defined with several planes.",
            "Use a kernel of 1x1, or reshape the tokens to an image first.",
        )
    return keep_layer(call)


def lift_token_group_normalisation(call: LayerCall) -> Lifted:
    """Return the same normalisation over groups of channels of all tokens; inexact with prefix tokens."""
    layout = layout_of(call.spec)
    is_unequal = layout.prefix and layout.planes > 1
    return lift_channel_normalisation(call).replace(inexact=UNEQUAL_SHARE if is_unequal else "")


def _pooled(call: LayerCall, *, is_mean: bool, is_sum: bool = False) -> Lifted:
    layout = layout_of(call.spec)
    is_unequal = is_mean and layout.prefix and layout.planes > 1
    output = plain_spec(call.shapes_2d[0])
    scale = _rescale(call, 1 / layout.planes) if is_sum else {}
    return Lifted(
        type(call.layer), call.config, (output,), inexact=UNEQUAL_SHARE if is_unequal else "", **scale
    )


def lift_token_selection(call: LayerCall) -> Lifted:
    """Return the same selection of prefix tokens, or the tokens without some prefix tokens.

    Raises:
        UnsupportedError: It selects single tokens of a plane, or some of the batch or channels.
    """
    layout = require_ungrouped(call.spec)
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
        tokens=layout.with_prefix(layout.prefix - start),
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
    """Return a Reshape of tokens to the volume or to its patches, for the same in 2D.

    Raises:
        UnsupportedError: There are prefix tokens, or the target is no image.
    """
    lifted = lift_patch_reshape(call)
    if lifted is None:
        raise UnsupportedError(
            f"a reshape of tokens to {call.shapes_2d[0][1:]} is not defined with several planes.",
            "Reshape tokens without prefix tokens to (height, width, channels).",
        )
    return lifted
