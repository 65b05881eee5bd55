"""Slices and slabs of volumes, in the graph, in the layout that `models` gathers when it scores a volume."""

from __future__ import annotations

import tensorflow as tf

SPATIAL_AXIS = {"depth": 0, "height": 1, "width": 2}  # of [D, H, W, C]


def take_slices(voxels: tf.Tensor, *, axis: str = "depth", slab: int = 1) -> tf.Tensor:
    """Every slice of a volume along one axis, with its neighbours as channels.

    Args:
        voxels: [D, H, W, C].
        axis: the axis that is cut: `depth`, `height` or `width`.
        slab: how many neighbouring slices (odd) become channels; border slices repeat the outermost one.

    Returns:
        [S, ., ., slab * C], the two remaining axes in their order; channels of one slice stay together.
    """
    moved = tf.experimental.numpy.moveaxis(voxels, SPATIAL_AXIS[axis], 0)  # [S, ., ., C]
    if slab == 1:
        return moved
    count = moved.shape[0]
    reach = slab // 2
    shifted = [
        tf.gather(moved, tf.clip_by_value(tf.range(count) + offset, 0, count - 1))
        for offset in range(-reach, reach + 1)
    ]
    return tf.concat(shifted, axis=-1)
