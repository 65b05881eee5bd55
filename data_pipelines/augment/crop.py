"""Random crop: a box at a random place, stretched over the whole grid."""

import tensorflow as tf

from voxlift.data_pipelines.augment.draws import Drawn, between, unit_numbers
from voxlift.data_pipelines.augment.grid import Grid
from voxlift.data_pipelines.augment.settings import Augment


def is_on(settings: Augment) -> bool:
    """True when the family can act."""
    return settings.crop_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """`crop_fraction` [3] (1: nothing happens); `crop_low` [3], the box's begin in parts of the side."""
    gate, number, *places = unit_numbers(seed, 5)
    acts = tf.constant(grid.live) & (gate < settings.crop_prob)
    fraction = tf.where(acts, between(number, *settings.crop_fraction), 1.0)
    return {"crop_fraction": fraction, "crop_low": tf.stack(places) * (1.0 - fraction)}


def crop_map(drawn: Drawn, sides: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    """Factor [3] and offset [3] from output voxel index to input voxel index.

    Args:
        drawn: What `draw` gave.
        sides: Voxels along depth, height and width.
    """
    fraction = drawn["crop_fraction"]
    # Voxel i covers i-1/2 .. i+1/2: edges are mapped onto edges, not centres onto centres.
    return fraction, drawn["crop_low"] * tf.constant(sides, tf.float32) + (fraction - 1.0) / 2.0
