"""Gamma, contrast and brightness: each voxel's value changes, none moves."""

import tensorflow as tf

from voxlift.data_pipelines.augment.draws import Drawn, log_between, unit_numbers
from voxlift.data_pipelines.augment.grid import Grid
from voxlift.data_pipelines.augment.levels import mean_and_deviation
from voxlift.data_pipelines.augment.settings import Augment


def is_on(settings: Augment) -> bool:
    """True when the family can act."""
    return settings.gamma_prob > 0 or settings.contrast_prob > 0 or settings.brightness_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:  # noqa: ARG001 - every family draws alike
    """`gamma`, `contrast` (1: nothing happens) and `brightness` (0), each on its own gate."""
    gates, numbers = (
        unit[:3] for unit in (unit_numbers(part, 3) for part in tf.unstack(tf.random.split(seed, 2)))
    )
    gamma = log_between(numbers[0], *settings.gamma)
    contrast = log_between(numbers[1], *settings.contrast)
    brightness = (2.0 * numbers[2] - 1.0) * settings.brightness
    return {
        "gamma": tf.where(gates[0] < settings.gamma_prob, gamma, 1.0),
        "contrast": tf.where(gates[1] < settings.contrast_prob, contrast, 1.0),
        "brightness": tf.where(gates[2] < settings.brightness_prob, brightness, 0.0),
    }


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:
    """Voxels [D, H, W, C] with gamma, then contrast and brightness about each channel's mean."""
    if settings.gamma_prob > 0:
        bent = voxels
        voxels = tf.cond(drawn["gamma"] != 1.0, lambda: bend(bent, drawn["gamma"]), lambda: bent)
    if settings.contrast_prob > 0 or settings.brightness_prob > 0:
        flat = voxels
        changes = (drawn["contrast"] != 1.0) | (drawn["brightness"] != 0.0)
        voxels = tf.cond(changes, lambda: stretch(flat, drawn["contrast"], drawn["brightness"]), lambda: flat)
    return voxels


def bend(voxels: tf.Tensor, gamma: tf.Tensor) -> tf.Tensor:
    """Voxels [D, H, W, C] raised to `gamma` between each channel's minimum and maximum, which stay.

    Args:
        voxels: Float32 [D, H, W, C].
        gamma: The power, a scalar above 0.
    """
    low, high = tf.reduce_min(voxels, axis=[0, 1, 2]), tf.reduce_max(voxels, axis=[0, 1, 2])
    return low + (high - low) * tf.pow(tf.math.divide_no_nan(voxels - low, high - low), gamma)


def stretch(voxels: tf.Tensor, contrast: tf.Tensor, brightness: tf.Tensor) -> tf.Tensor:
    """Voxels [D, H, W, C] stretched about each channel's mean, plus `brightness` standard deviations.

    Args:
        voxels: Float32 [D, H, W, C].
        contrast: Factor of the distance to the mean, a scalar.
        brightness: In standard deviations of the channel, a scalar.
    """
    mean, deviation = mean_and_deviation(voxels)
    return voxels * contrast + (mean * (1.0 - contrast) + brightness * deviation)
