"""Slices and slabs of volumes, in the graph, in the layout that `models` gathers when it scores a volume."""

from __future__ import annotations

import tensorflow as tf

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
