"""Slices and slabs of volumes, in the graph, in the layout that `models` gathers when it scores a volume."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from voxlift.data_pipelines.cache.prepared import PreparedVolumes, Shape

SPATIAL_AXES = ("depth", "height", "width")  # of [D, H, W, C]


def take_slices(voxels: tf.Tensor, *, axis: str = "depth", slab: int = 1) -> tf.Tensor:
    """Every slice of a volume along one axis, with its neighbours as channels.

    Args:
        voxels: [D, H, W, C].
        axis: the axis that is cut, `depth`, `height` or `width`; or `all` three in turn, of a cube.
        slab: how many neighbouring slices (odd) become channels; border slices repeat the outermost one.

    Returns:
        [S, ., ., slab * C], the two remaining axes in their order; channels of one slice stay together.
    """
    if axis == "all":
        return tf.concat([take_slices(voxels, axis=each, slab=slab) for each in SPATIAL_AXES], axis=0)
    moved = tf.experimental.numpy.moveaxis(voxels, SPATIAL_AXES.index(axis), 0)  # [S, ., ., C]
    if slab == 1:
        return moved
    count = moved.shape[0]
    reach = slab // 2
    shifted = [
        tf.gather(moved, tf.clip_by_value(tf.range(count) + offset, 0, count - 1))
        for offset in range(-reach, reach + 1)
    ]
    return tf.concat(shifted, axis=-1)


def choose_slices(volumes: PreparedVolumes, *, axis: str = "depth", slices: str = "all") -> NDArray[np.bool_]:
    """Which slices of each volume train, [N, S], in the order of `take_slices`.

    The rules are those by which the slice model picks what it scores, so that training and scoring see the
    same slices. Foreground is told from the stored volume: augmentation changes neither set nor count.

    Args:
        volumes: what trains; `foreground` reads all of them once.
        axis: as in `take_slices`.
        slices: `all`; `central`, the middle half of each axis (rounded up); or `foreground`, the slices whose
            share of voxels above the volume's mean is at least half of the whole volume's share.
    """
    axes = SPATIAL_AXES if axis == "all" else (axis,)
    if slices == "foreground":
        rows = [[_foreground(voxels, each) for each in axes] for voxels in volumes.arrays()]
        return np.array([np.concatenate(row) for row in rows])
    pick = _central if slices == "central" else _every
    row = np.concatenate([pick(volumes.shape, each) for each in axes])
    return np.tile(row, (len(volumes), 1))


def _every(shape: Shape, axis: str) -> NDArray[np.bool_]:
    return np.ones(shape[SPATIAL_AXES.index(axis)], bool)


def _central(shape: Shape, axis: str) -> NDArray[np.bool_]:
    total = shape[SPATIAL_AXES.index(axis)]
    count = (total + 1) // 2
    places = np.arange(total) - (total - count) // 2
    return (places >= 0) & (places < count)


def _foreground(voxels: NDArray[Any], axis: str) -> NDArray[np.bool_]:
    others = tuple(place for place in range(4) if place != SPATIAL_AXES.index(axis))
    share = (voxels > voxels.mean(dtype=np.float64)).mean(axis=others)
    return np.asarray(share >= 0.5 * share.mean())
