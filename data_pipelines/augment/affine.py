"""Affine transform in mm: rotation, scale, shear and translation about the centre of the grid."""

import math

import numpy as np
import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import (
    Drawn,
    Grid,
    draw_uniform,
    scale_to_limits,
    scale_to_log_range,
)


def is_on(settings: Augment) -> bool:
    """Return whether the settings let the transform act."""
    return settings.affine_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """Return `rotation_degrees`, `shear`, `translation_mm` (neutral: 0) and `scale` (1), [3] each."""
    gate, *numbers = draw_uniform(seed, 13)
    has_extent = tf.constant(grid.has_extent)
    acts = gate < settings.affine_prob
    factors = scale_to_log_range(tf.stack(numbers[9:12]), *settings.scale)
    factors = factors if settings.scale_each_axis else tf.repeat(factors[:1], 3)
    # A rotation about an axis moves the two others, a shear two of them: both must have an extent.
    depth, height, width = grid.has_extent
    planes = tf.constant([height and width, depth and width, depth and height])
    shears = tf.reverse(planes, [0])  # depth-height, depth-width, height-width
    return {
        "rotation_degrees": tf.where(
            acts & planes, scale_to_limits(numbers[:3], settings.rotation_degrees), 0.0
        ),
        "shear": tf.where(acts & shears, scale_to_limits(numbers[3:6], settings.shear), 0.0),
        "translation_mm": tf.where(
            acts & has_extent, scale_to_limits(numbers[6:9], settings.translation_mm), 0.0
        ),
        "scale": tf.where(acts & has_extent, factors, 1.0),
    }


def affine_map(drawn: Drawn, sides: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return matrix [3, 3] and offset [3] from output voxel index to input voxel index.

    The object is scaled, then sheared, then rotated about the width, height and depth axes in this order,
    then moved; the map is the inverse.

    Args:
        drawn: From `draw`, with `spacing` in mm per voxel, [3].
        sides: Voxels along depth, height and width.
    """
    spacing = drawn["spacing"]
    # object -> moved object, in mm from the centre
    forward = tf.matmul(
        rotation_matrix(drawn["rotation_degrees"]), _shear_matrix(drawn["shear"]) * drawn["scale"]
    )
    inverse = tf.linalg.inv(forward)
    # A quotient of spacings, not a product with a reciprocal, so that no movement gives exactly the identity.
    matrix = inverse * (spacing[None, :] / spacing[:, None])
    centre = (tf.constant(sides, tf.float32) - 1.0) / 2.0
    moved = centre + drawn["translation_mm"] / spacing
    return matrix, centre - tf.linalg.matvec(matrix, moved)


def rotation_matrix(degrees: tf.Tensor) -> tf.Tensor:
    """Return the rotation matrix [3, 3] over (depth, height, width): about width, then height, then depth.

    Args:
        degrees: About the depth, height and width axes, float32 [3].
    """
    # Rodrigues: I + sin K + (1 - cos) K^2, with K the cross product by each axis
    cross = np.cross(np.eye(3)[:, None], np.eye(3)).transpose(0, 2, 1).astype(np.float32)
    angle = (degrees * (math.pi / 180.0))[:, None, None]
    turns = tf.eye(3) + tf.sin(angle) * cross + (1.0 - tf.cos(angle)) * (cross @ cross)
    return tf.matmul(turns[0], tf.matmul(turns[1], turns[2]))


def _shear_matrix(shear: tf.Tensor) -> tf.Tensor:
    return tf.eye(3) + tf.scatter_nd([[0, 1], [0, 2], [1, 2]], shear, [3, 3])
