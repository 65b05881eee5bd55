"""White Gaussian noise."""

import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import Drawn, Grid, draw_uniform, scale_to_range
from voxlift.data_pipelines.augment.voxel_operations import apply_if, channel_mean_and_deviation


def is_on(settings: Augment) -> bool:
    """Return whether the settings let the transform act."""
    return settings.noise_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:  # noqa: ARG001 - as all transforms
    """Return `noise_sd`, in standard deviations of the channel (0: no noise), and its `noise_seed`."""
    seeds = tf.random.split(seed, 2)
    gate, number = draw_uniform(seeds[0], 2)
    sd = tf.where(gate < settings.noise_prob, scale_to_range(number, *settings.noise_sd), 0.0)
    return {"noise_sd": sd, "noise_seed": seeds[1]}


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:  # noqa: ARG001 - as all
    """Return the voxels [D, H, W, C] plus noise."""
    sd = drawn["noise_sd"]
    return apply_if(sd > 0.0, _add_noise, voxels, sd, drawn["noise_seed"])


def _add_noise(voxels: tf.Tensor, sd: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    _, deviation = channel_mean_and_deviation(voxels)
    return voxels + tf.random.stateless_normal(voxels.shape, seed) * (sd * deviation)
