"""Flips, 90-degree rotations and axis permutations: the grid is mapped onto itself, no value changes.

All are signed permutation matrices, output axis by input axis; their product is one transposition and one
reversal.
"""

import itertools

import numpy as np
import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import Drawn, Grid, draw_uniform, scale_to_index

_AXES = ("depth", "height", "width")


def is_on(settings: Augment) -> bool:
    """Return whether the settings let the transform act."""
    return any(settings.flip_prob) or any(settings.turn_prob) or settings.permute_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """Return `axis_map` int32 [3, 3]: flips, then rotations about each axis in turn, then a permutation.

    Raises:
        ValueError: Axes shall be permuted on a grid that is not cubic.
    """
    flips, rotations, rest = tf.unstack(tf.random.split(seed, 3))
    axis_map = _draw_flips(settings, grid, flips)
    for axis, (gate, number) in enumerate(zip(*[iter(draw_uniform(rotations, 6))] * 2, strict=True)):
        counts = allowed_quarter_turns(grid, axis)
        if settings.turn_prob[axis] and counts:
            quarters = tf.constant(counts)[scale_to_index(number, len(counts))]
            quarters = tf.where(gate < settings.turn_prob[axis], quarters, 0)
            axis_map = tf.matmul(tf.constant(_rotation_matrices(axis))[quarters], axis_map)
    permutations = _allowed_permutations(settings, grid)
    if permutations:
        gate, number = draw_uniform(rest, 2)
        which = tf.where(gate < settings.permute_prob, 1 + scale_to_index(number, len(permutations)), 0)
        axis_map = tf.matmul(tf.constant(_permutation_matrices([(0, 1, 2), *permutations]))[which], axis_map)
    return {"axis_map": axis_map}


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:
    """Return the voxels [D, H, W, C] with axes exchanged and reversed."""
    axis_map, shape = drawn["axis_map"], voxels.shape
    if any(settings.turn_prob) or settings.permute_prob > 0:
        order = tf.concat([tf.argmax(tf.abs(axis_map), axis=1, output_type=tf.int32), [3]], axis=0)
        voxels = tf.transpose(voxels, order)
    is_reversed = tf.concat([tf.reduce_sum(axis_map, axis=1) < 0, [False]], axis=0)
    # Exchanged axes have equal sides, which the graph cannot know.
    return tf.ensure_shape(tf.raw_ops.Reverse(tensor=voxels, dims=is_reversed), shape)


def allowed_quarter_turns(grid: Grid, axis: int) -> tuple[int, ...]:
    """Return the numbers of quarter turns about an axis that the grid allows; none where its plane is a line.

    Args:
        grid: The grid of the voxels.
        axis: 0, 1 or 2 for depth, height or width.
    """
    first, second = (other for other in range(3) if other != axis)
    if not (grid.has_extent[first] and grid.has_extent[second]):
        return ()
    return (1, 2, 3) if grid.is_interchangeable(first, second) else (2,)


def _draw_flips(settings: Augment, grid: Grid, seed: tf.Tensor) -> tf.Tensor:
    if settings.keep_handedness or not any(settings.flip_prob):
        return tf.eye(3, dtype=tf.int32)
    chances = [
        prob if extent else 0.0 for prob, extent in zip(settings.flip_prob, grid.has_extent, strict=True)
    ]
    return tf.linalg.diag(tf.where(tf.random.stateless_uniform([3], seed) < tf.constant(chances), -1, 1))


def _rotation_matrices(axis: int) -> np.ndarray:
    """Return the matrices [4, 3, 3] of 0 to 3 quarter turns, from the first to the second other axis."""
    first, second = (other for other in range(3) if other != axis)
    quarter = np.eye(3, dtype=np.int32)
    quarter[[first, second]] = 0
    quarter[first, second], quarter[second, first] = -1, 1
    return np.stack([np.linalg.matrix_power(quarter, count) for count in range(4)])


def _allowed_permutations(settings: Augment, grid: Grid) -> list[tuple[int, ...]]:
    """Return the permutations other than the identity that may be drawn; on a slice, of height and width."""
    if not settings.permute_prob:
        return []
    axes = [axis for axis in range(3) if grid.has_extent[axis]]
    if not all(grid.is_interchangeable(axes[0], axis) for axis in axes):
        names = " x ".join(_AXES[axis] for axis in axes)
        raise ValueError(
            f"augment: permute_prob={settings.permute_prob:g} expects a cubic grid, received {names} = "
            f"{[grid.sides[axis] for axis in axes]} voxels of {[grid.spacing[axis] for axis in axes]} mm; "
            "choose a cubic preprocess.shape and an equal spacing, or augment.permute_prob=0"
        )
    orders = []
    for order in itertools.permutations(axes):
        full = list(range(3))
        for axis, source in zip(axes, order, strict=True):
            full[axis] = source
        is_mirror = np.linalg.det(_permutation_matrices([tuple(full)])[0]) < 0
        if full != [0, 1, 2] and not (is_mirror and settings.keep_handedness):
            orders.append(tuple(full))
    return orders


def _permutation_matrices(orders: list[tuple[int, ...]]) -> np.ndarray:
    return np.stack([np.eye(3, dtype=np.int32)[list(order)] for order in orders])
