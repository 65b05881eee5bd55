"""Shift by whole voxels: exact, without interpolation."""

import tensorflow as tf

from voxlift.data_pipelines.augment.box import box_mask
from voxlift.data_pipelines.augment.draws import Drawn, unit_numbers
from voxlift.data_pipelines.augment.grid import Grid
from voxlift.data_pipelines.augment.levels import fill_value
from voxlift.data_pipelines.augment.settings import Augment


def is_on(settings: Augment) -> bool:
    """True when the family can act."""
    return settings.shift_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """`shift` int32[3]: voxels along each axis, 0 where nothing happens."""
    gate, *numbers = unit_numbers(seed, 4)
    most = [limit if live else 0 for limit, live in zip(settings.shift_voxels, grid.live, strict=True)]
    counts = tf.constant([2 * limit + 1 for limit in most], tf.float32)
    shift = tf.minimum(tf.cast(tf.stack(numbers) * counts, tf.int32), 2 * tf.constant(most)) - tf.constant(
        most
    )
    return {"shift": tf.where(gate < settings.shift_prob, shift, 0)}


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:
    """Voxels [D, H, W, C] moved by `shift`; what comes in is the fill value."""
    shift, sides = drawn["shift"], tuple(voxels.shape[:3])
    kept = box_mask(shift, shift + tf.constant(sides), sides)
    return tf.where(kept, tf.roll(voxels, shift, axis=[0, 1, 2]), fill_value(voxels, settings))
