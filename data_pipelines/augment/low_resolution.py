"""Low-resolution simulation: voxels averaged over thicker ones, then interpolated back."""

import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import (
    Drawn,
    Grid,
    draw_uniform,
    scale_to_index,
    scale_to_range,
)
from voxlift.data_pipelines.augment.voxel_operations import apply_along_axes, apply_if


def is_on(settings: Augment) -> bool:
    """Return whether the settings let the transform act."""
    return settings.lowres_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """Return `lowres_factor` [3]: how many times thicker the voxels are along each axis, 1: unchanged."""
    gate, number, which = draw_uniform(seed, 3)
    axes = [axis for axis in range(3) if grid.has_extent[axis]]
    if settings.lowres_all_axes or not axes:
        chosen = tf.constant(grid.has_extent)
    else:
        chosen = tf.range(3) == tf.constant(axes)[scale_to_index(which, len(axes))]
    factor = scale_to_range(number, *settings.lowres_factor)
    return {"lowres_factor": tf.where(chosen & (gate < settings.lowres_prob), factor, 1.0)}


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:  # noqa: ARG001 - as all
    """Return the voxels [D, H, W, C] as a scanner with thicker voxels would have measured them."""
    factors = drawn["lowres_factor"]
    return apply_if(tf.reduce_any(factors > 1.0), _reduce_resolution, voxels, factors)


def _reduce_resolution(voxels: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    matrices = [
        _resolution_matrix(side, factors[axis]) if side > 1 else None
        for axis, side in enumerate(voxels.shape[:3])
    ]
    return apply_along_axes(voxels, matrices)


def _resolution_matrix(side: int, factor: tf.Tensor) -> tf.Tensor:
    """Return the matrix [side, side] that averages into thick voxels, then interpolates linearly."""
    index = tf.range(side, dtype=tf.float32)
    low, high = index[:, None] * factor, (index[:, None] + 1.0) * factor
    overlap = tf.nn.relu(tf.minimum(index + 1.0, high) - tf.maximum(index, low))
    # [thick, side]; rows beyond the last thick voxel are 0
    averaging = tf.math.divide_no_nan(overlap, tf.reduce_sum(overlap, axis=1, keepdims=True))
    last = tf.math.ceil(side / factor) - 1.0
    position = tf.clip_by_value((index + 0.5) / factor - 0.5, 0.0, last)
    return tf.matmul(tf.nn.relu(1.0 - tf.abs(position[:, None] - index)), averaging)
