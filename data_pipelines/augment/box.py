"""Boxes of whole voxels."""

import tensorflow as tf


def box_mask(low: tf.Tensor, high: tf.Tensor, sides: tuple[int, ...]) -> tf.Tensor:
    """Mask [D, H, W, 1], true where low <= index < high on all axes; `low` and `high` are int32[3].

    Args:
        low: First voxel of the box per axis, int32 [3]; may lie outside the grid.
        high: The voxel behind its last one per axis, int32 [3].
        sides: Voxels along depth, height and width.
    """
    inside = [
        (tf.range(side) >= low[axis]) & (tf.range(side) < high[axis]) for axis, side in enumerate(sides)
    ]
    return inside[0][:, None, None, None] & inside[1][:, None, None] & inside[2][:, None]
