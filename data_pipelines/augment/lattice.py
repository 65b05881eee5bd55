"""Flips, right-angle turns and axis permutations: the grid is mapped onto itself, no value changes.

All are signed permutation matrices, output axis by input axis; their product is one transposition and one
reversal.
"""

import itertools

import numpy as np
import tensorflow as tf

from voxlift.data_pipelines.augment.draws import Drawn, unit_numbers, whole_below
from voxlift.data_pipelines.augment.grid import Grid
from voxlift.data_pipelines.augment.settings import Augment

_AXES = ("depth", "height", "width")


def is_on(settings: Augment) -> bool:
    """True when the family can act."""
    return any(settings.flip_prob) or any(settings.turn_prob) or settings.permute_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """`lattice` int32[3, 3]: flips first, then turns about depth, height and width, then a permutation.

    Raises:
        ValueError: when axes shall be permuted on a grid that is not cubic.
    """
    flips, turns, rest = tf.unstack(tf.random.split(seed, 3))
    lattice = _draw_flips(settings, grid, flips)
    for axis, (gate, number) in enumerate(zip(*[iter(unit_numbers(turns, 6))] * 2, strict=True)):
        counts = turn_counts(grid, axis)
        if settings.turn_prob[axis] and counts:
            quarters = tf.constant(counts)[whole_below(number, len(counts))]
            quarters = tf.where(gate < settings.turn_prob[axis], quarters, 0)
            lattice = tf.matmul(tf.constant(_turns(axis))[quarters], lattice)
    permutations = _permutations(settings, grid)
    if permutations:
        gate, number = unit_numbers(rest, 2)
        which = tf.where(gate < settings.permute_prob, 1 + whole_below(number, len(permutations)), 0)
        lattice = tf.matmul(tf.constant(_matrices([(0, 1, 2), *permutations]))[which], lattice)
    return {"lattice": lattice}


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:
    """Voxels [D, H, W, C] with axes exchanged and reversed."""
    lattice, shape = drawn["lattice"], voxels.shape
    if any(settings.turn_prob) or settings.permute_prob > 0:
        order = tf.concat([tf.argmax(tf.abs(lattice), axis=1, output_type=tf.int32), [3]], axis=0)
        voxels = tf.transpose(voxels, order)
    backwards = tf.concat([tf.reduce_sum(lattice, axis=1) < 0, [False]], axis=0)
    # Axes exchanged have equal sides, which the graph cannot know.
    return tf.ensure_shape(tf.raw_ops.Reverse(tensor=voxels, dims=backwards), shape)


def turn_counts(grid: Grid, axis: int) -> tuple[int, ...]:
    """How many quarter turns about an axis the grid allows, besides none: empty where the plane is a line.

    Args:
        grid: On which the voxels stand.
        axis: 0, 1 or 2 for depth, height or width.
    """
    first, second = (other for other in range(3) if other != axis)
    if not (grid.live[first] and grid.live[second]):
        return ()
    return (1, 2, 3) if grid.are_alike(first, second) else (2,)


def _draw_flips(settings: Augment, grid: Grid, seed: tf.Tensor) -> tf.Tensor:
    if settings.keep_handedness or not any(settings.flip_prob):
        return tf.eye(3, dtype=tf.int32)
    chances = [prob if live else 0.0 for prob, live in zip(settings.flip_prob, grid.live, strict=True)]
    return tf.linalg.diag(tf.where(tf.random.stateless_uniform([3], seed) < tf.constant(chances), -1, 1))


def _turns(axis: int) -> np.ndarray:
    """Matrices [4, 3, 3] of 0 to 3 quarter turns, from the first towards the second of the other axes."""
    first, second = (other for other in range(3) if other != axis)
    quarter = np.eye(3, dtype=np.int32)
    quarter[[first, second]] = 0
    quarter[first, second], quarter[second, first] = -1, 1
    return np.stack([np.linalg.matrix_power(quarter, count) for count in range(4)])


def _permutations(settings: Augment, grid: Grid) -> list[tuple[int, ...]]:
    """The true permutations that may be drawn; on a slice height and width are exchanged."""
    if not settings.permute_prob:
        return []
    axes = [axis for axis in range(3) if grid.live[axis]]
    if not all(grid.are_alike(axes[0], axis) for axis in axes):
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
        mirrored = np.linalg.det(_matrices([tuple(full)])[0]) < 0
        if full != [0, 1, 2] and not (mirrored and settings.keep_handedness):
            orders.append(tuple(full))
    return orders


def _matrices(orders: list[tuple[int, ...]]) -> np.ndarray:
    return np.stack([np.eye(3, dtype=np.int32)[list(order)] for order in orders])
