"""Low-resolution simulation: voxels averaged over thicker ones, then interpolated back."""

import tensorflow as tf

from voxlift.data_pipelines.augment.draws import Drawn, between, unit_numbers, whole_below
from voxlift.data_pipelines.augment.grid import Grid
from voxlift.data_pipelines.augment.separable import apply_along_axes
from voxlift.data_pipelines.augment.settings import Augment


def is_on(settings: Augment) -> bool:
    """True when the family can act."""
    return settings.lowres_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
    """`lowres_factor` [3]: how many times thicker the voxels are along each axis, 1 where nothing happens."""
    gate, number, which = unit_numbers(seed, 3)
    axes = [axis for axis in range(3) if grid.live[axis]]
    if settings.lowres_all_axes or not axes:
        chosen = tf.constant(grid.live)
    else:
        chosen = tf.range(3) == tf.constant(axes)[whole_below(which, len(axes))]
    factor = between(number, *settings.lowres_factor)
    return {"lowres_factor": tf.where(chosen & (gate < settings.lowres_prob), factor, 1.0)}


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:  # noqa: ARG001
    """Voxels [D, H, W, C] as a scanner with thicker voxels would have given them."""
    factors, sides = drawn["lowres_factor"], voxels.shape[:3]
    return tf.cond(
        tf.reduce_any(factors > 1.0),
        lambda: apply_along_axes(
            voxels, [_matrix(n, factors[a]) if n > 1 else None for a, n in enumerate(sides)]
        ),
        lambda: voxels,
    )


def _matrix(side: int, factor: tf.Tensor) -> tf.Tensor:
    """Matrix [side, side]: averaging into thick voxels, then linear interpolation between them."""
    index = tf.range(side, dtype=tf.float32)
    low, high = index[:, None] * factor, (index[:, None] + 1.0) * factor
    overlap = tf.nn.relu(tf.minimum(index + 1.0, high) - tf.maximum(index, low))
    # [thick, side]; rows beyond the last thick voxel are 0
    averaging = tf.math.divide_no_nan(overlap, tf.reduce_sum(overlap, axis=1, keepdims=True))
    last = tf.math.ceil(side / factor) - 1.0
    place = tf.clip_by_value((index + 0.5) / factor - 0.5, 0.0, last)
    return tf.matmul(tf.nn.relu(1.0 - tf.abs(place[:, None] - index)), averaging)
