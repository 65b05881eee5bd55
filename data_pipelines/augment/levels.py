"""Each channel's own scale, which makes intensity changes safe under any intensity preprocessing."""

import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment


def minimum(voxels: tf.Tensor) -> tf.Tensor:
    """The least value of each channel, [C]."""
    return tf.reduce_min(voxels, axis=[0, 1, 2])


def mean_and_deviation(voxels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and standard deviation of each channel, [C] each."""
    mean, variance = tf.nn.moments(voxels, axes=[0, 1, 2])
    return mean, tf.sqrt(variance)


def fill_value(voxels: tf.Tensor, settings: Augment) -> tf.Tensor:
    """What stands outside of the grid, [C].

    Args:
        voxels: [D, H, W, C].
        settings: Whether it is each channel's minimum, or a number.
    """
    if settings.fill_minimum:
        return minimum(voxels)
    return tf.fill([voxels.shape[-1]], settings.fill)
