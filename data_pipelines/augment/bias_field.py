"""Bias field: the smooth brightening and darkening that an uneven receive coil leaves in MRI."""

import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import Drawn, Grid
from voxlift.data_pipelines.augment.voxel_operations import (
    apply_along_axes,
    apply_if,
    channel_minimum,
    cubic_basis,
)

_NODES = 4  # one span of a cubic B-spline: a cubic polynomial over the whole axis


def is_on(settings: Augment) -> bool:
    """Return whether the settings let the transform act."""
    return settings.bias_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:  # noqa: ARG001 - as all transforms
    """Return `bias_log` [4, 4, 4]: the field's logarithm at its nodes, 0 where it does not act."""
    seeds = tf.random.split(seed, 2)
    limit = settings.bias_strength
    nodes = tf.random.stateless_uniform([_NODES] * 3, seeds[0], -limit, limit)
    return {"bias_log": tf.where(tf.random.stateless_uniform([], seeds[1]) < settings.bias_prob, nodes, 0.0)}


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:  # noqa: ARG001 - as all
    """Return the voxels [D, H, W, C], their distance to the channel's minimum multiplied by the field."""
    nodes = drawn["bias_log"]
    return apply_if(tf.reduce_any(nodes != 0.0), _multiply, voxels, nodes)


def bias_field(nodes: tf.Tensor, sides: tuple[int, ...]) -> tf.Tensor:
    """Return the field [D, H, W], within exp(-strength) .. exp(strength).

    Args:
        nodes: Its logarithm at the nodes, [4, 4, 4].
        sides: Voxels along depth, height and width.
    """
    positions = [1.0 + (tf.range(side, dtype=tf.float32) + 0.5) / side for side in sides]
    return tf.exp(apply_along_axes(nodes, [cubic_basis(position, _NODES) for position in positions]))


def _multiply(voxels: tf.Tensor, nodes: tf.Tensor) -> tf.Tensor:
    minimum = channel_minimum(voxels)
    return (voxels - minimum) * bias_field(nodes, voxels.shape[:3])[..., None] + minimum
