"""Shift by whole voxels: exact, without interpolation."""

import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import Drawn, Grid, draw_uniform
from voxlift.data_pipelines.augment.voxel_operations import box_mask, fill_value


def is_on(settings: Augment) -> bool:
    """Return whether the settings let the transform act."""
    return settings.shift_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """Return `shift` int32 [3]: voxels along each axis, 0 where it does not act."""
    gate, *numbers = draw_uniform(seed, 4)
    limits = [
        limit if extent else 0 for limit, extent in zip(settings.shift_voxels, grid.has_extent, strict=True)
    ]
    counts = tf.constant([2 * limit + 1 for limit in limits], tf.float32)
    index = tf.minimum(tf.cast(tf.stack(numbers) * counts, tf.int32), 2 * tf.constant(limits))
    return {"shift": tf.where(gate < settings.shift_prob, index - tf.constant(limits), 0)}


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:
    """Return the voxels [D, H, W, C] moved by `shift`; the fill value enters from outside."""
    shift, sides = drawn["shift"], tuple(voxels.shape[:3])
    kept = box_mask(shift, shift + tf.constant(sides), sides)
    return tf.where(kept, tf.roll(voxels, shift, axis=[0, 1, 2]), fill_value(voxels, settings))
