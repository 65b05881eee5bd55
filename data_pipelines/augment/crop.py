"""Random crop: a box at a random position, stretched over the whole grid."""

import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import Drawn, Grid, draw_uniform, scale_to_range


def is_on(settings: Augment) -> bool:
    """Return whether the settings let the transform act."""
    return settings.crop_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """Return `crop_fraction` [3] (1: no crop) and `crop_low` [3], the box's start over the side."""
    gate, number, *positions = draw_uniform(seed, 5)
    acts = tf.constant(grid.has_extent) & (gate < settings.crop_prob)
    fraction = tf.where(acts, scale_to_range(number, *settings.crop_fraction), 1.0)
    return {"crop_fraction": fraction, "crop_low": tf.stack(positions) * (1.0 - fraction)}


def crop_map(drawn: Drawn, sides: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return factor [3] and offset [3] from output voxel index to input voxel index.

    Args:
        drawn: From `draw`.
        sides: Voxels along depth, height and width.
    """
    fraction = drawn["crop_fraction"]
    # Voxel i covers i-1/2 .. i+1/2: edges are mapped onto edges, not centres onto centres.
    return fraction, drawn["crop_low"] * tf.constant(sides, tf.float32) + (fraction - 1.0) / 2.0
