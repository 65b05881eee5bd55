"""Linear operations that act along each axis on its own: a matrix per axis."""

import math
from collections.abc import Sequence

import tensorflow as tf


def apply_along_axes(values: tf.Tensor, matrices: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """Values [D, H, W, ...], matrix number a [m, n] multiplied in along axis a; None leaves the axis.

    Args:
        values: Float tensor [D, H, W, ...] of known sides.
        matrices: One per axis from the first on, [m, n] for n values along it; None leaves the axis.

    Returns:
        The tensor with m values along each multiplied axis.
    """
    for axis, matrix in enumerate(matrices):
        if matrix is None:
            continue
        sides = values.shape.as_list()
        before, after = math.prod(sides[:axis]), math.prod(sides[axis + 1 :])
        if after == 1:
            result = tf.matmul(tf.reshape(values, [before, sides[axis]]), matrix, transpose_b=True)
        else:
            result = tf.matmul(matrix, tf.reshape(values, [before, sides[axis], after]))
        values = tf.reshape(result, [*sides[:axis], matrix.shape[0], *sides[axis + 1 :]])
    return values


def cubic_basis(positions: tf.Tensor, count: int) -> tf.Tensor:
    """Weights [n, count] of `count` cubic B-spline nodes at whole numbers 0, 1, ..., for n positions.

    Rows sum to 1 for positions in 1..count-2. Source: the truncated powers of Schoenberg's cardinal spline
    (1946).

    Args:
        positions: Float32 [n], in distances of nodes.
        count: Number of nodes.
    """
    distance = tf.abs(positions[:, None] - tf.range(count, dtype=tf.float32))
    return tf.nn.relu(2.0 - distance) ** 3 / 6.0 - tf.nn.relu(1.0 - distance) ** 3 * (2.0 / 3.0)
