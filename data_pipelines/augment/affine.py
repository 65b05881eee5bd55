"""Small affine movement in mm: rotation, scale, shear, translation about the middle of the grid."""

import math

import numpy as np
import tensorflow as tf

from voxlift.data_pipelines.augment.draws import Drawn, log_between, unit_numbers, within
from voxlift.data_pipelines.augment.grid import Grid
from voxlift.data_pipelines.augment.settings import Augment


def is_on(settings: Augment) -> bool:
    """True when the family can act."""
    return settings.affine_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """`rotation_degrees`, `shear`, `translation_mm` (0: nothing happens) and `scale` (1), each [3]."""
    gate, *numbers = unit_numbers(seed, 13)
    live = tf.constant(grid.live)
    acts = gate < settings.affine_prob
    factors = log_between(tf.stack(numbers[9:12]), *settings.scale)
    factors = factors if settings.scale_each_axis else tf.repeat(factors[:1], 3)
    # A rotation about an axis moves the two others, a shear two of them: both must have an extent.
    planes = tf.constant(
        [grid.live[first] and grid.live[second] for first, second in ((1, 2), (0, 2), (0, 1))]
    )
    shears = tf.reverse(planes, [0])  # depth-height, depth-width, height-width
    return {
        "rotation_degrees": tf.where(acts & planes, within(numbers[:3], settings.rotation_degrees), 0.0),
        "shear": tf.where(acts & shears, within(numbers[3:6], settings.shear), 0.0),
        "translation_mm": tf.where(acts & live, within(numbers[6:9], settings.translation_mm), 0.0),
        "scale": tf.where(acts & live, factors, 1.0),
    }


def affine_map(drawn: Drawn, sides: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    """Matrix [3, 3] and offset [3] from output voxel index to input voxel index.

    The object is scaled, then sheared, then rotated about the width, height and depth axes in this order,
    then moved; the map looks back along that way.

    Args:
        drawn: What `draw` gave, with `spacing` in mm per voxel, [3].
        sides: Voxels along depth, height and width.
    """
    spacing = drawn["spacing"]
    # object -> moved object, in mm from the middle
    forward = tf.matmul(rotation(drawn["rotation_degrees"]), _shear(drawn["shear"]) * drawn["scale"])
    back = tf.linalg.inv(forward)
    # A quotient of spacings, not a product with a reciprocal, so that no movement gives exactly the identity.
    matrix = back * (spacing[None, :] / spacing[:, None])
    middle = (tf.constant(sides, tf.float32) - 1.0) / 2.0
    moved = middle + drawn["translation_mm"] / spacing
    return matrix, middle - tf.linalg.matvec(matrix, moved)


def rotation(degrees: tf.Tensor) -> tf.Tensor:
    """Rotation matrix [3, 3] over (depth, height, width): about width first, then height, then depth.

    Args:
        degrees: About the depth, height and width axes, float32 [3].
    """
    # Rodrigues: I + sin K + (1 - cos) K^2, with K the cross product by each axis
    cross = np.cross(np.eye(3)[:, None], np.eye(3)).transpose(0, 2, 1).astype(np.float32)
    angle = (degrees * (math.pi / 180.0))[:, None, None]
    turns = tf.eye(3) + tf.sin(angle) * cross + (1.0 - tf.cos(angle)) * (cross @ cross)
    return tf.matmul(turns[0], tf.matmul(turns[1], turns[2]))


def _shear(shear: tf.Tensor) -> tf.Tensor:
    return tf.eye(3) + tf.scatter_nd([[0, 1], [0, 2], [1, 2]], shear, [3, 3])
