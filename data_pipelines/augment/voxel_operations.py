"""Operations on voxels that several transforms share: channel statistics, boxes, separable operations."""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment


def apply_if(
    condition: tf.Tensor, function: Callable[..., tf.Tensor], voxels: tf.Tensor, *parameters: tf.Tensor
) -> tf.Tensor:
    """Return `function(voxels, *parameters)` where a condition of the graph holds, else the voxels.

    Args:
        condition: Bool scalar.
        function: Keeps the voxels' shape.
        voxels: [D, H, W, C].
        parameters: Further arguments of the function.
    """
    return tf.cond(condition, lambda: function(voxels, *parameters), lambda: voxels)


def channel_minimum(voxels: tf.Tensor) -> tf.Tensor:
    """Return the smallest value of each channel, [C]."""
    return tf.reduce_min(voxels, axis=[0, 1, 2])


def channel_mean_and_deviation(voxels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return mean and standard deviation of each channel, [C] each."""
    mean, variance = tf.nn.moments(voxels, axes=[0, 1, 2])
    return mean, tf.sqrt(variance)


def fill_value(voxels: tf.Tensor, settings: Augment) -> tf.Tensor:
    """Return the value outside the grid, [C].

    Args:
        voxels: [D, H, W, C].
        settings: Whether it is each channel's minimum, or a number.
    """
    if settings.fill_minimum:
        return channel_minimum(voxels)
    return tf.fill([voxels.shape[-1]], settings.fill)


def box_mask(low: tf.Tensor, high: tf.Tensor, sides: tuple[int, ...]) -> tf.Tensor:
    """Return the mask [D, H, W, 1] that is true where low <= index < high on all axes.

    Args:
        low: First voxel of the box per axis, int32 [3]; may lie outside the grid.
        high: The voxel after its last one per axis, int32 [3].
        sides: Voxels along depth, height and width.
    """
    inside = [
        (tf.range(side) >= low[axis]) & (tf.range(side) < high[axis]) for axis, side in enumerate(sides)
    ]
    return inside[0][:, None, None, None] & inside[1][:, None, None] & inside[2][:, None]


def apply_along_axes(values: tf.Tensor, matrices: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """Return a separable linear operation of the values: one matrix multiplied in along each axis.

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
    """Return the weights [n, count] of `count` cubic B-spline nodes at 0, 1, ..., for n positions.

    Rows sum to 1 for positions in 1 .. count - 2.

    Args:
        positions: Float32 [n], in node distances.
        count: Number of nodes.

    Source:
        The truncated powers of Schoenberg 1946, doi:10.1090/qam/15914.
    """
    distance = tf.abs(positions[:, None] - tf.range(count, dtype=tf.float32))
    return tf.nn.relu(2.0 - distance) ** 3 / 6.0 - tf.nn.relu(1.0 - distance) ** 3 * (2.0 / 3.0)
