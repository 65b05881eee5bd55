"""Fewer (or more equal) filters: which channels of the 2D network stay.

So that trained weights can be cut to them.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from keras import layers

from voxlift.models.lifting.channels import ChannelMap, Source, follow_channels
from voxlift.models.lifting.cuts import edit_layer
from voxlift.models.lifting.edits import Edits
from voxlift.models.lifting.errors import RefusedError
from voxlift.models.lifting.kinds import Model

FilterScale = float | Sequence[float]


def scale_filters(model: Model, scale: FilterScale, edits: Edits) -> None:
    """Add to `edits` the cuts that give a network fewer filters.

    Args:
        model: The 2D network.
        scale: A factor in (0, 1], or one per stage (a stage ends where height is halved): a factor, or a
            whole number of filters for the stage's widest layer.
        edits: Receives the changes of layers and tensors.

    Raises:
        RefusedError: A number out of range, or another number of stages than the network has.
    """
    channels = ChannelMap()
    for tensor in model.inputs:
        channels.by_tensor[id(tensor)] = channels.make(int(tensor.shape[-1] or 1))
        channels.heights[id(tensor)] = 1.0
        channels.pin(channels.by_tensor[id(tensor)])
    tensors = follow_channels(model, channels)
    for tensor in model.outputs:
        channels.pin(channels.by_tensor[id(tensor)])
    stays = _decide(channels, _factors(channels.sources, scale))
    for layer, read, given in channels.by_layer.values():
        edit_layer(layer, stays[read], stays[given], edits)
    for tensor in tensors:
        kept = int(stays[channels.by_tensor[id(tensor)]].sum())
        edits.channels[id(tensor)] = kept


def _factors(sources: list[Source], scale: FilterScale) -> dict[int, float]:
    """Return the factor of each stage."""
    free = sorted({source.stage for source in sources if not isinstance(source.layer, layers.Dense)})
    stages = {source.stage for source in sources}
    if isinstance(scale, int | float):
        _check_factor(scale)
        return dict.fromkeys(stages, float(scale))
    if len(scale) != len(free):
        raise RefusedError(
            f"filters has {len(scale)} entries, and the network has {len(free)} stages with convolutions.",
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
        raise RefusedError(
            f"filters must keep a share above 0 and up to 1 of the filters; got {factor:g}.",
            "Weights exist for the 2D network's own filters only: build a wider 2D network for more.",
        )


def _decide(channels: ChannelMap, factors: dict[int, float]) -> npt.NDArray[np.bool_]:
    """Return for each channel whether it stays: the first ones of each layer, up to its share."""
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
