"""Cut volumes into slices and slabs in the graph, in the order in which `models` scores them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from voxlift.data_pipelines.cache.format import PreparedVolumes, Shape

SPATIAL_AXES = ("depth", "height", "width")  # of [D, H, W, C]


def take_slices(voxels: tf.Tensor, *, axis: str = "depth", slab: int = 1) -> tf.Tensor:
    """Return every slice of a volume along one axis, with its neighbours as channels.

    Args:
        voxels: [D, H, W, C].
        axis: The axis that is cut, `depth`, `height` or `width`; or `all` three one after another, of a cube.
        slab: Number (odd) of neighbouring slices that become channels; beyond the border the outermost slice
            is repeated.

    Returns:
        [S, ., ., slab * C], the two remaining axes in their order; the channels of one slice are adjacent.
    """
    if axis == "all":
        return tf.concat([take_slices(voxels, axis=each, slab=slab) for each in SPATIAL_AXES], axis=0)
    slices = tf.experimental.numpy.moveaxis(voxels, SPATIAL_AXES.index(axis), 0)  # [S, ., ., C]
    if slab == 1:
        return slices
    count, half = slices.shape[0], slab // 2
    shifted = [
        tf.gather(slices, tf.clip_by_value(tf.range(count) + offset, 0, count - 1))
        for offset in range(-half, half + 1)
    ]
    return tf.concat(shifted, axis=-1)  # [S, ., ., slab * C]


def choose_slices(volumes: PreparedVolumes, *, axis: str = "depth", slices: str = "all") -> NDArray[np.bool_]:
    """Return which slices of each volume are trained on, [N, S], in the order of `take_slices`.

    The rules are those of the slice model, so that training and scoring use the same slices. Foreground is
    determined from the stored volume: augmentation changes neither which slices nor how many.

    Args:
        volumes: The training volumes; `foreground` reads all of them once.
        axis: As in `take_slices`.
        slices: `all`; `central`, the middle half of each axis (rounded up); or `foreground`, the slices whose
            fraction of voxels above the volume's mean is at least half of the whole volume's fraction.
    """
    axes = SPATIAL_AXES if axis == "all" else (axis,)
    if slices == "foreground":
        rows = [[_is_foreground(voxels, each) for each in axes] for voxels in volumes.arrays()]
        return np.array([np.concatenate(row) for row in rows])
    is_chosen = _is_central if slices == "central" else _is_any
    row = np.concatenate([is_chosen(volumes.shape, each) for each in axes])
    return np.tile(row, (len(volumes), 1))


def _is_any(shape: Shape, axis: str) -> NDArray[np.bool_]:
    return np.ones(shape[SPATIAL_AXES.index(axis)], bool)


def _is_central(shape: Shape, axis: str) -> NDArray[np.bool_]:
    total = shape[SPATIAL_AXES.index(axis)]
    count = (total + 1) // 2
    index = np.arange(total) - (total - count) // 2
    return (index >= 0) & (index < count)


def _is_foreground(voxels: NDArray[Any], axis: str) -> NDArray[np.bool_]:
    others = tuple(other for other in range(4) if other != SPATIAL_AXES.index(axis))
    fraction = (voxels > voxels.mean(dtype=np.float64)).mean(axis=others)
    return np.asarray(fraction >= 0.5 * fraction.mean())
