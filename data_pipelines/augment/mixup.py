"""Mixup: pairs of a batch blended, voxels and one-hot labels alike.

Source:
    Zhang et al. 2018, mixup: beyond empirical risk minimization, arXiv:1710.09412.
"""

from collections.abc import Callable

import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import Drawn

MixBatch = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def build_mixup(settings: Augment) -> MixBatch:
    """Return a function (voxels [B, ...], one_hot [B, K], seed int32 [2]) -> both blended.

    An alpha of 0 changes nothing.

    Raises:
        ValueError: The settings are invalid.
    """
    settings.check()

    def mix(voxels: tf.Tensor, one_hot: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if not settings.mixup_alpha:
            return voxels, one_hot
        return apply_mixup(voxels, one_hot, draw_mixup(settings, tf.shape(voxels)[0], seed))

    return mix


def draw_mixup(settings: Augment, batch: int | tf.Tensor, seed: tf.Tensor) -> Drawn:
    """Return `mixup_partner` int32 [B], a permutation, and `mixup_weight` [B] of an element itself, 0.5 to 1.

    The larger of the two Beta weights is taken: over a random permutation the pairs have the same
    distribution, and an element stays mostly the one that its name, path and weight belong to.

    Args:
        settings: With the alpha of Beta(alpha, alpha).
        batch: How many examples.
        seed: int32 [2].
    """
    first, second, order = tf.unstack(tf.random.split(seed, 3))
    alpha = tf.cast(settings.mixup_alpha, tf.float32)
    one, other = (tf.random.stateless_gamma([batch], part, alpha) for part in (first, second))
    total = one + other
    # Both Gamma numbers underflow for a small alpha, where one of the weights is 1 almost surely.
    weight = tf.where(total > 0.0, tf.maximum(one, other) / tf.where(total > 0.0, total, 1.0), 1.0)
    partner = tf.argsort(tf.random.stateless_uniform([batch], order))
    return {"mixup_partner": partner, "mixup_weight": weight}


def apply_mixup(voxels: tf.Tensor, one_hot: tf.Tensor, drawn: Drawn) -> tuple[tf.Tensor, tf.Tensor]:
    """Return voxels [B, ...] and labels [B, K], each element blended with its partner.

    Args:
        voxels: Float [B, ...].
        one_hot: Float [B, K], rows that sum to one.
        drawn: From `draw_mixup`, for this batch size.
    """
    return _blend(voxels, drawn), _blend(one_hot, drawn)


def _blend(values: tf.Tensor, drawn: Drawn) -> tf.Tensor:
    weight = tf.reshape(drawn["mixup_weight"], [-1] + [1] * (values.shape.rank - 1))
    return weight * values + (1.0 - weight) * tf.gather(values, drawn["mixup_partner"])
