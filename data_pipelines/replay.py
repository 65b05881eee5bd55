"""Who is in a training batch, found by drawing the stream's order again without reading a volume."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from voxlift.data_pipelines.orders import epoch_orders
from voxlift.data_pipelines.pipeline import SHUFFLED_VOLUMES, TrainingOptions


def batch_members(
    labels: NDArray[np.int64],
    options: TrainingOptions,
    *,
    step: int,
    chosen: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Positions [B] of the records that a batch of `training_volumes` or `training_slices` holds.

    Args:
        labels: [N] class indices, as the stream got them.
        options: as the stream got them; the batch is one of the epoch `first_epoch`.
        step: the batch within the epoch, from 0.
        chosen: [N, S] as a stream of slices got it; None for one of volumes.
    """
    epoch, first = options.first_epoch, step * options.batch_size
    orders = epoch_orders(
        labels, epochs=epoch + 1, seed=options.seed, first_epoch=epoch, balanced=options.balanced
    )
    if chosen is None:
        return np.asarray(orders[0][first : first + options.batch_size])
    rows = tf.data.Dataset.from_tensor_slices(np.repeat(orders[0], chosen.sum(axis=1)[orders[0]]))
    buffer = SHUFFLED_VOLUMES * chosen.shape[1]
    mixed = rows.shuffle(buffer, seed=options.seed, reshuffle_each_iteration=False)
    drawn = list(mixed.skip(first).take(options.batch_size).as_numpy_iterator())
    return np.asarray(drawn, np.int64)
