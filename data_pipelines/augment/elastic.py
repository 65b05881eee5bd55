"""Elastic deformation: random displacements on a coarse grid, spread by cubic B-splines.

Source: Rueckert et al., Nonrigid registration using free-form deformations, 1999, doi:10.1109/42.796284.
"""

import math

import tensorflow as tf

from voxlift.data_pipelines.augment.draws import Drawn
from voxlift.data_pipelines.augment.grid import Grid
from voxlift.data_pipelines.augment.separable import apply_along_axes, cubic_basis
from voxlift.data_pipelines.augment.settings import Augment


def is_on(settings: Augment) -> bool:
    """True when the family can act."""
    return settings.elastic_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """`elastic_mm` [3, d, h, w], displacement at each node (0: nothing happens); `elastic_node_mm`."""
    seeds = tf.random.split(seed, 2)
    extents = ((side - 1) * step for side, step in zip(grid.sides, grid.spacing, strict=True))
    counts = [math.ceil(extent / settings.elastic_node_mm) + 3 for extent in extents]
    nodes = tf.random.stateless_uniform([3, *counts], seeds[0], -settings.elastic_mm, settings.elastic_mm)
    acts = tf.random.stateless_uniform([], seeds[1]) < settings.elastic_prob
    nodes = tf.where((acts & tf.constant(grid.live))[:, None, None, None], nodes, 0.0)
    return {"elastic_mm": nodes, "elastic_node_mm": tf.constant(settings.elastic_node_mm, tf.float32)}


def displacements(drawn: Drawn, sides: tuple[int, ...]) -> tf.Tensor:
    """Displacement [3, D, H, W] in voxels along each axis, from an output voxel to where it looks.

    Args:
        drawn: What `draw` gave, with `spacing` in mm per voxel, [3].
        sides: Voxels along depth, height and width.
    """
    nodes, spacing = drawn["elastic_mm"], drawn["spacing"]
    bases = []
    for axis, side in enumerate(sides):
        count = nodes.shape[axis + 1]
        places = (tf.range(side, dtype=tf.float32) - (side - 1) / 2) * (
            spacing[axis] / drawn["elastic_node_mm"]
        )
        bases.append(cubic_basis(places + (count - 1) / 2, count))
    return apply_along_axes(nodes / spacing[:, None, None, None], [None, *bases])
