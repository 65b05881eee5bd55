"""Cutout: boxes overwritten with the fill value.

Source: DeVries and Taylor, Improved regularization of convolutional neural networks with cutout, 2017,
arXiv:1708.04552.
"""

import tensorflow as tf

from voxlift.data_pipelines.augment.box import box_mask
from voxlift.data_pipelines.augment.draws import Drawn, between
from voxlift.data_pipelines.augment.grid import Grid
from voxlift.data_pipelines.augment.levels import fill_value
from voxlift.data_pipelines.augment.settings import Augment


def is_on(settings: Augment) -> bool:
    """True when the family can act."""
    return settings.cutout_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """`cutout_low` and `cutout_size` int32[boxes, 3], wholly inside the grid; size 0: nothing happens."""
    # numbers per box: its size, its place along three axes, and in the first box the gate of all
    numbers = tf.random.stateless_uniform([settings.cutout_boxes, 5], seed)
    sides = tf.constant(grid.sides, tf.float32)
    size = tf.round(between(numbers[:, :1], *settings.cutout_fraction) * sides)
    size = tf.where(tf.constant(grid.live), size, 1.0)
    low = tf.minimum(tf.floor(numbers[:, 1:4] * (sides - size + 1.0)), sides - size)
    size = tf.where(numbers[0, 4] < settings.cutout_prob, size, 0.0)
    return {"cutout_low": tf.cast(low, tf.int32), "cutout_size": tf.cast(size, tf.int32)}


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:
    """Voxels [D, H, W, C] with the boxes filled."""
    sides = tuple(voxels.shape[:3])
    boxes = zip(tf.unstack(drawn["cutout_low"]), tf.unstack(drawn["cutout_size"]), strict=True)
    hidden = tf.reduce_any([box_mask(low, low + size, sides) for low, size in boxes], axis=0)
    return tf.where(hidden, fill_value(voxels, settings), voxels)
