"""Cutout: boxes overwritten with the fill value.

Source:
    DeVries and Taylor 2017, Improved regularization of convolutional neural networks with cutout,
    arXiv:1708.04552.
"""

import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import Drawn, Grid, scale_to_range
from voxlift.data_pipelines.augment.voxel_operations import box_mask, fill_value


def is_on(settings: Augment) -> bool:
    """Return whether the settings let the transform act."""
    return settings.cutout_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """Return `cutout_low` and `cutout_size`, int32 [boxes, 3], inside the grid; size 0: no box."""
    # numbers per box: its size, its position along three axes, and in the first box the gate of all
    numbers = tf.random.stateless_uniform([settings.cutout_boxes, 5], seed)
    sides = tf.constant(grid.sides, tf.float32)
    size = tf.round(scale_to_range(numbers[:, :1], *settings.cutout_fraction) * sides)
    size = tf.where(tf.constant(grid.has_extent), size, 1.0)
    low = tf.minimum(tf.floor(numbers[:, 1:4] * (sides - size + 1.0)), sides - size)
    size = tf.where(numbers[0, 4] < settings.cutout_prob, size, 0.0)
    return {"cutout_low": tf.cast(low, tf.int32), "cutout_size": tf.cast(size, tf.int32)}


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:
    """Return the voxels [D, H, W, C] with the boxes filled."""
    sides = tuple(voxels.shape[:3])
    boxes = zip(tf.unstack(drawn["cutout_low"]), tf.unstack(drawn["cutout_size"]), strict=True)
    hidden = tf.reduce_any([box_mask(low, low + size, sides) for low, size in boxes], axis=0)
    return tf.where(hidden, fill_value(voxels, settings), voxels)
