"""Bias field: the smooth brightening and darkening that an uneven receive coil leaves in MRI."""

import tensorflow as tf

from voxlift.data_pipelines.augment.draws import Drawn
from voxlift.data_pipelines.augment.grid import Grid
from voxlift.data_pipelines.augment.levels import minimum
from voxlift.data_pipelines.augment.separable import apply_along_axes, cubic_basis
from voxlift.data_pipelines.augment.settings import Augment

_NODES = 4  # one span of a cubic B-spline: a cubic polynomial over the whole axis


def is_on(settings: Augment) -> bool:
    """True when the family can act."""
    return settings.bias_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:  # noqa: ARG001 - every family draws alike
    """`bias_log` [4, 4, 4]: the field's logarithm at its nodes, 0 where nothing happens."""
    seeds = tf.random.split(seed, 2)
    limit = settings.bias_strength
    nodes = tf.random.stateless_uniform([_NODES] * 3, seeds[0], -limit, limit)
    return {"bias_log": tf.where(tf.random.stateless_uniform([], seeds[1]) < settings.bias_prob, nodes, 0.0)}


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:  # noqa: ARG001
    """Voxels [D, H, W, C] with their height above the channel's minimum multiplied by the field."""

    def multiply() -> tf.Tensor:
        floor = minimum(voxels)
        return (voxels - floor) * bias_field(drawn["bias_log"], voxels.shape[:3])[..., None] + floor

    return tf.cond(tf.reduce_any(drawn["bias_log"] != 0.0), multiply, lambda: voxels)


def bias_field(nodes: tf.Tensor, sides: tuple[int, ...]) -> tf.Tensor:
    """The field [D, H, W], within exp(-strength)..exp(strength).

    Args:
        nodes: Its logarithm at the nodes, [4, 4, 4].
        sides: Voxels along depth, height and width.
    """
    places = [1.0 + (tf.range(side, dtype=tf.float32) + 0.5) / side for side in sides]
    return tf.exp(apply_along_axes(nodes, [cubic_basis(place, _NODES) for place in places]))
