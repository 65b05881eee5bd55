"""How a 2D layer's configuration and weights are cut to the channels that stay."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from keras import layers

from voxlift.models.lifting.edits import Edit, Edits
from voxlift.models.lifting.flow import Shape
from voxlift.models.lifting.kinds import Layer
from voxlift.models.lifting.rules.base import Transfer, Weights

SOURCES = (layers.Conv2D, layers.SeparableConv2D, layers.Conv2DTranspose, layers.Dense)

Stays: TypeAlias = npt.NDArray[np.bool_]
Cut: TypeAlias = dict[int, Stays]


def edit_layer(layer: Layer, read: Stays, given: Stays, edits: Edits) -> None:
    """Add the cut of one layer, from the channels that stay of those it reads and of those it gives.

    Args:
        layer: The 2D layer.
        read: Bool per channel that it reads.
        given: Bool per channel that it gives.
        edits: Receives the cut.
    """
    if read.all() and given.all():
        return
    config = _config_of(layer, read, given)
    cuts = [_cut_of(layer, weight, read, given) for weight in layer.weights]
    shapes = tuple(
        _cut_shape(tuple(weight.shape), cut) for weight, cut in zip(layer.weights, cuts, strict=True)
    )
    edits.add(layer, Edit(config, _cutter(cuts), shapes, source=f"{given.sum()} of {given.size} filters"))


def _config_of(layer: Layer, read: Stays, given: Stays) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if isinstance(layer, SOURCES) and not isinstance(layer, layers.DepthwiseConv2D):
        config["units" if isinstance(layer, layers.Dense) else "filters"] = int(given.sum())
    groups = getattr(layer, "groups", 1)
    if isinstance(layer, layers.Conv2D) and groups > 1:
        config["groups"] = int(read.sum()) // (read.size // groups)
    if isinstance(layer, layers.Reshape) and layer.target_shape[-1] != -1:
        config["target_shape"] = (*layer.target_shape[:-1], int(given.sum()))
    return config


def _cut_of(layer: Layer, weight: Any, read: Stays, given: Stays) -> Cut:  # noqa: ANN401  # a Keras variable
    """Return which positions of which axes of a weight stay."""
    rank = len(weight.shape)
    if isinstance(layer, layers.Dense) and rank == 2:
        return {0: read, 1: given}
    if rank != 4:
        return {rank - 1: given}
    if isinstance(layer, layers.SeparableConv2D):
        return {2: read} if weight is layer.weights[0] else _pointwise_cut(layer, read, given)
    if isinstance(layer, layers.Conv2DTranspose):
        return {2: given, 3: read}
    is_depthwise = isinstance(layer, layers.DepthwiseConv2D)
    is_grouped = getattr(layer, "groups", 1) > 1
    return {2: read} if is_depthwise else {3: given} if is_grouped else {2: read, 3: given}


def _pointwise_cut(layer: Layer, read: Stays, given: Stays) -> Cut:
    return {2: np.repeat(read, layer.depth_multiplier), 3: given}


def _cut_shape(shape: Shape, cut: Cut) -> Shape:
    return tuple(int(cut[axis].sum()) if axis in cut else size for axis, size in enumerate(shape))


def _cutter(cuts: list[Cut]) -> Transfer:
    def cut_weights(weights: Weights) -> Weights:
        cut = []
        for weight, axes in zip(weights, cuts, strict=True):
            for axis, stays in axes.items():
                weight = np.compress(stays, weight, axis=axis)  # noqa: PLW2901  # one axis after another
            cut.append(weight)
        return cut

    return cut_weights
