"""Elastic deformation: random displacements on a coarse grid, interpolated by cubic B-splines.

Source:
    Rueckert et al. 1999, Nonrigid registration using free-form deformations, doi:10.1109/42.796284.
"""

import math

import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import Drawn, Grid
from voxlift.data_pipelines.augment.voxel_operations import apply_along_axes, cubic_basis


def is_on(settings: Augment) -> bool:
    """Return whether the settings let the transform act."""
    return settings.elastic_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """Return `elastic_mm` [3, d, h, w], the displacement at each node (0: none), and `elastic_node_mm`."""
    seeds = tf.random.split(seed, 2)
    extents = ((side - 1) * step for side, step in zip(grid.sides, grid.spacing, strict=True))
    counts = [math.ceil(extent / settings.elastic_node_mm) + 3 for extent in extents]
    nodes = tf.random.stateless_uniform([3, *counts], seeds[0], -settings.elastic_mm, settings.elastic_mm)
    acts = tf.random.stateless_uniform([], seeds[1]) < settings.elastic_prob
    nodes = tf.where((acts & tf.constant(grid.has_extent))[:, None, None, None], nodes, 0.0)
    return {"elastic_mm": nodes, "elastic_node_mm": tf.constant(settings.elastic_node_mm, tf.float32)}


def displacement_field(drawn: Drawn, sides: tuple[int, ...]) -> tf.Tensor:
    """Return the displacement [3, D, H, W] in voxels along each axis, from output to input voxel.

    Args:
        drawn: From `draw`, with `spacing` in mm per voxel, [3].
        sides: Voxels along depth, height and width.
    """
    nodes, spacing = drawn["elastic_mm"], drawn["spacing"]
    bases = []
    for axis, side in enumerate(sides):
        count = nodes.shape[axis + 1]
        nodes_per_voxel = spacing[axis] / drawn["elastic_node_mm"]
        positions = (tf.range(side, dtype=tf.float32) - (side - 1) / 2) * nodes_per_voxel
        bases.append(cubic_basis(positions + (count - 1) / 2, count))
    return apply_along_axes(nodes / spacing[:, None, None, None], [None, *bases])
