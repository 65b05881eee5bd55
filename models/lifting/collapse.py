"""The account of a scheme's kernels: added up along depth, they are the 2D network's."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import keras
import numpy as np

from voxlift.models.lifting.inflate import Array
from voxlift.models.lifting.kinds import Layer

if TYPE_CHECKING:
    from voxlift.models.lifting.plan import LiftPlan


def collapse_difference(plan: "LiftPlan", made: dict[int, list[Layer]]) -> float:
    """Return by how much built kernels, collapsed along depth, differ from the 2D kernels (relative).

    Args:
        plan: A plan whose weights come from 2D.
        made: The layers that each 2D operation became, by the operation's id.
    """
    return largest(_difference(*triple) for triple in _weight_pairs(plan, made))


def largest(differences: Iterable[float]) -> float:
    """Return the largest number, and infinity where one is none: Python's max would pass over it."""
    values = [value if np.isfinite(value) else np.inf for value in differences]
    return max(values, default=0.0)


def _weight_pairs(plan: "LiftPlan", made: dict[int, list[Layer]]) -> Iterator[tuple[Array, Array, int]]:
    for step in plan.graph.walk():
        lifted, operation = step.lifted, step.call.operation
        if lifted is None or lifted.transfer is None or step.is_shared:
            continue
        layer = made[id(operation)][len(lifted.before)]
        cut = plan.graph_edits.cut_of(operation)
        stride = layer.strides[0] if isinstance(layer, keras.layers.Conv3DTranspose) else 1
        for weight, weight_2d in zip(layer.get_weights(), cut(operation.get_weights()), strict=True):
            yield weight, weight_2d, stride


def _difference(weight: Array, weight_2d: Array, stride: int) -> float:
    collapsed = weight
    if weight.ndim == weight_2d.ndim + 1:
        collapsed = weight.sum(axis=0, dtype=np.float64) / stride
    elif weight.shape != weight_2d.shape and weight.ndim == weight_2d.ndim:
        repeats = weight.shape[0] // weight_2d.shape[0]
        tiles = weight.reshape(repeats, *weight_2d.shape)
        collapsed = (tiles.sum if weight.ndim == 2 else tiles.mean)(axis=0, dtype=np.float64)
    scale = float(np.abs(weight_2d).max()) if weight_2d.size else 1.0
    return float(np.abs(collapsed.reshape(weight_2d.shape) - weight_2d).max()) / (scale or 1.0)
