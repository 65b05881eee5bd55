"""Gaussian blur of a width in mm, so that coarse axes are blurred by fewer voxels."""

import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import Drawn, Grid, draw_uniform, scale_to_range
from voxlift.data_pipelines.augment.voxel_operations import apply_along_axes, apply_if


def is_on(settings: Augment) -> bool:
    """Return whether the settings let the transform act."""
    return settings.blur_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:  # noqa: ARG001 - as all transforms
    """Return `blur_sigma_mm`, 0 where it does not act."""
    gate, number = draw_uniform(seed, 2)
    sigma = scale_to_range(number, *settings.blur_sigma_mm)
    return {"blur_sigma_mm": tf.where(gate < settings.blur_prob, sigma, 0.0)}


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:  # noqa: ARG001 - as all
    """Return the voxels [D, H, W, C] blurred; the kernel is renormalised at the border."""
    sigma_mm = drawn["blur_sigma_mm"]
    return apply_if(sigma_mm > 0.0, _blur, voxels, sigma_mm / drawn["spacing"])


def _blur(voxels: tf.Tensor, sigmas: tf.Tensor) -> tf.Tensor:
    matrices = [
        _gaussian_matrix(side, sigmas[axis]) if side > 1 else None
        for axis, side in enumerate(voxels.shape[:3])
    ]
    return apply_along_axes(voxels, matrices)


def _gaussian_matrix(side: int, sigma: tf.Tensor) -> tf.Tensor:
    index = tf.range(side, dtype=tf.float32)
    # Below a thousandth of a voxel the neighbours' weights are 0 in float32 anyway; avoids a division by 0.
    weights = tf.exp(-0.5 * ((index[:, None] - index) / tf.maximum(sigma, 1e-3)) ** 2)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)
