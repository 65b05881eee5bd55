"""Reduce the number of filters: which channels of the 2D network are kept, with their trained weights."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from keras import layers

from voxlift.models.lifting.edits.base import Edit, Edits
from voxlift.models.lifting.edits.channels import CHANNEL_SOURCES, ChannelMap, Source, number_channels
from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.types import Layer, Model, Shape, Transfer, Weights

FilterScale: TypeAlias = float | Sequence[float]
Mask: TypeAlias = npt.NDArray[np.bool_]  # per channel, whether it is kept
Cut: TypeAlias = dict[int, Mask]  # by axis of a weight


def scale_filters(model: Model, scale: FilterScale, edits: Edits) -> None:
    """Add to `edits` the changes that give a network fewer filters.

    Args:
        model: The 2D network.
        scale: A factor in (0, 1], or one entry per stage (a stage ends where height is halved): a factor, or
            a whole number of filters for the widest layer of the stage.
        edits: Receives the changes of layers and tensors.

    Raises:
        UnsupportedError: A number is out of range, or the number of entries is not the number of stages.
    """
    channels = ChannelMap()
    for tensor in model.inputs:
        channels.by_tensor[id(tensor)] = channels.create(int(tensor.shape[-1] or 1))
        channels.heights[id(tensor)] = 1.0
        channels.pin(channels.by_tensor[id(tensor)])
    tensors = number_channels(model, channels)
    for tensor in model.outputs:
        channels.pin(channels.by_tensor[id(tensor)])
    kept = _choose_channels(channels, _stage_factors(channels.sources, scale))
    for layer, read, returned in channels.by_layer.values():
        _cut_layer(layer, kept[read], kept[returned], edits)
    for tensor in tensors:
        edits.channels[id(tensor)] = int(kept[channels.by_tensor[id(tensor)]].sum())


def _stage_factors(sources: list[Source], scale: FilterScale) -> dict[int, float]:
    """Return the factor of each stage."""
    free = sorted({source.stage for source in sources if not isinstance(source.layer, layers.Dense)})
    stages = {source.stage for source in sources}
    if isinstance(scale, int | float):
        _check_factor(scale)
        return dict.fromkeys(stages, float(scale))
    if len(scale) != len(free):
        raise UnsupportedError(
            f"filters has {len(scale)} entries, but the network has {len(free)} stages with convolutions.",
            "Give one factor or number of filters per stage, or one factor for all.",
        )
    widest = {stage: max(len(each.outputs) for each in sources if each.stage == stage) for stage in free}
    factors = {
        stage: value / widest[stage] if value > 1 or isinstance(value, int) else float(value)
        for stage, value in zip(free, scale, strict=True)
    }
    for factor in factors.values():
        _check_factor(factor)
    return {stage: factors.get(stage, factors[free[-1]]) for stage in stages}


def _check_factor(factor: float) -> None:
    if not 0 < factor <= 1:
        raise UnsupportedError(
            f"expected filters to keep a fraction above 0 and at most 1 of the filters; received {factor:g}.",
            "There are weights only for the filters of the 2D network: for more, build a wider 2D network.",
        )


def _choose_channels(channels: ChannelMap, factors: dict[int, float]) -> Mask:
    """Return for each channel whether it is kept: the first ones of each layer, up to its factor."""
    roots = np.array([channels.root(number) for number in range(len(channels.parents))])
    state: dict[int, bool] = {int(roots[number]): True for number in channels.pinned}
    for source in channels.sources:
        wanted = max(1, round(len(source.outputs) * factors[source.stage]))
        own = [int(roots[number]) for number in source.outputs]
        kept = sum(state.get(root, False) for root in own)
        for root in own:
            if root not in state:
                state[root] = kept < wanted
                kept += own.count(root) if state[root] else 0
    return np.array([state.get(int(root), True) for root in roots], bool)


def _cut_layer(layer: Layer, read: Mask, returned: Mask, edits: Edits) -> None:
    """Add the change of one layer.

    Args:
        layer: The 2D layer.
        read: Per channel that the layer reads, whether it is kept.
        returned: Per channel that the layer returns, whether it is kept.
        edits: Receives the change.
    """
    if read.all() and returned.all():
        return
    cuts = [_weight_cut(layer, weight, read, returned) for weight in layer.weights]
    shapes = tuple(
        _cut_shape(tuple(weight.shape), cut) for weight, cut in zip(layer.weights, cuts, strict=True)
    )
    source = f"{returned.sum()} of {returned.size} filters"
    edits.add(layer, Edit(_cut_config(layer, read, returned), _cut_weights(cuts), shapes, source=source))


def _cut_config(layer: Layer, read: Mask, returned: Mask) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if isinstance(layer, CHANNEL_SOURCES) and not isinstance(layer, layers.DepthwiseConv2D):
        config["units" if isinstance(layer, layers.Dense) else "filters"] = int(returned.sum())
    groups = getattr(layer, "groups", 1)
    if isinstance(layer, layers.Conv2D) and groups > 1:
        config["groups"] = int(read.sum()) // (read.size // groups)
    if isinstance(layer, layers.Reshape) and layer.target_shape[-1] != -1:
        config["target_shape"] = (*layer.target_shape[:-1], int(returned.sum()))
    return config


def _weight_cut(layer: Layer, weight: Any, read: Mask, returned: Mask) -> Cut:  # noqa: ANN401  # a Keras variable
    """Return which positions of which axes of a weight are kept."""
    rank = len(weight.shape)
    if isinstance(layer, layers.Dense) and rank == 2:
        return {0: read, 1: returned}
    if rank != 4:
        return {rank - 1: returned}
    if isinstance(layer, layers.SeparableConv2D):
        is_depthwise = weight is layer.weights[0]
        return {2: read} if is_depthwise else {2: np.repeat(read, layer.depth_multiplier), 3: returned}
    if isinstance(layer, layers.Conv2DTranspose):
        return {2: returned, 3: read}
    if isinstance(layer, layers.DepthwiseConv2D):
        return {2: read}
    return {3: returned} if getattr(layer, "groups", 1) > 1 else {2: read, 3: returned}


def _cut_shape(shape: Shape, cut: Cut) -> Shape:
    return tuple(int(cut[axis].sum()) if axis in cut else size for axis, size in enumerate(shape))


def _cut_weights(cuts: list[Cut]) -> Transfer:
    def cut_weights(weights: Weights) -> Weights:
        changed = []
        for weight, axes in zip(weights, cuts, strict=True):
            for axis, kept in axes.items():
                weight = np.compress(kept, weight, axis=axis)  # noqa: PLW2901  # one axis after another
            changed.append(weight)
        return changed

    return cut_weights
