"""Gaussian blur of a width in mm, so that coarse axes are blurred by fewer voxels."""

import tensorflow as tf

from voxlift.data_pipelines.augment.draws import Drawn, between, unit_numbers
from voxlift.data_pipelines.augment.grid import Grid
from voxlift.data_pipelines.augment.separable import apply_along_axes
from voxlift.data_pipelines.augment.settings import Augment


def is_on(settings: Augment) -> bool:
    """True when the family can act."""
    return settings.blur_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:  # noqa: ARG001 - every family draws alike
    """`blur_sigma_mm`, 0 where nothing happens."""
    gate, number = unit_numbers(seed, 2)
    return {
        "blur_sigma_mm": tf.where(gate < settings.blur_prob, between(number, *settings.blur_sigma_mm), 0.0)
    }


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:  # noqa: ARG001
    """Voxels [D, H, W, C] blurred; cut at the border, the kernel still weighs 1, so that no rim darkens."""

    def blur() -> tf.Tensor:
        sigmas = drawn["blur_sigma_mm"] / drawn["spacing"]
        sides = voxels.shape[:3]
        return apply_along_axes(
            voxels, [_matrix(n, sigmas[a]) if n > 1 else None for a, n in enumerate(sides)]
        )

    return tf.cond(drawn["blur_sigma_mm"] > 0.0, blur, lambda: voxels)


def _matrix(side: int, sigma: tf.Tensor) -> tf.Tensor:
    index = tf.range(side, dtype=tf.float32)
    # Below a thousandth of a voxel the neighbours' weights are 0 in float32 anyway, and a division by 0 is
    # avoided.
    weights = tf.exp(-0.5 * ((index[:, None] - index) / tf.maximum(sigma, 1e-3)) ** 2)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)
