"""Gamma, contrast and brightness: each voxel's value changes, none moves."""

import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import Drawn, Grid, draw_uniform, scale_to_log_range
from voxlift.data_pipelines.augment.voxel_operations import apply_if, channel_mean_and_deviation


def is_on(settings: Augment) -> bool:
    """Return whether the settings let the transform act."""
    return settings.gamma_prob > 0 or settings.contrast_prob > 0 or settings.brightness_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:  # noqa: ARG001 - as all transforms
    """Return `gamma`, `contrast` (1 where they do not act) and `brightness` (0), drawn independently."""
    gates, numbers = (draw_uniform(part, 3) for part in tf.unstack(tf.random.split(seed, 2)))
    gamma = scale_to_log_range(numbers[0], *settings.gamma)
    contrast = scale_to_log_range(numbers[1], *settings.contrast)
    brightness = (2.0 * numbers[2] - 1.0) * settings.brightness
    return {
        "gamma": tf.where(gates[0] < settings.gamma_prob, gamma, 1.0),
        "contrast": tf.where(gates[1] < settings.contrast_prob, contrast, 1.0),
        "brightness": tf.where(gates[2] < settings.brightness_prob, brightness, 0.0),
    }


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:
    """Return the voxels [D, H, W, C] with gamma, then contrast and brightness about each channel's mean."""
    if settings.gamma_prob > 0:
        voxels = apply_if(drawn["gamma"] != 1.0, apply_gamma, voxels, drawn["gamma"])
    if settings.contrast_prob > 0 or settings.brightness_prob > 0:
        contrast, brightness = drawn["contrast"], drawn["brightness"]
        acts = (contrast != 1.0) | (brightness != 0.0)
        voxels = apply_if(acts, apply_contrast, voxels, contrast, brightness)
    return voxels


def apply_gamma(voxels: tf.Tensor, gamma: tf.Tensor) -> tf.Tensor:
    """Return the voxels raised to `gamma` between each channel's minimum and maximum, which stay.

    Args:
        voxels: Float32 [D, H, W, C].
        gamma: The power, a scalar above 0.
    """
    low, high = tf.reduce_min(voxels, axis=[0, 1, 2]), tf.reduce_max(voxels, axis=[0, 1, 2])
    return low + (high - low) * tf.pow(tf.math.divide_no_nan(voxels - low, high - low), gamma)


def apply_contrast(voxels: tf.Tensor, contrast: tf.Tensor, brightness: tf.Tensor) -> tf.Tensor:
    """Return the voxels stretched about each channel's mean, plus `brightness` standard deviations.

    Args:
        voxels: Float32 [D, H, W, C].
        contrast: Factor of the distance to the mean, a scalar.
        brightness: In standard deviations of the channel, a scalar.
    """
    mean, deviation = channel_mean_and_deviation(voxels)
    return voxels * contrast + (mean * (1.0 - contrast) + brightness * deviation)
