"""THE visible column: from prepared files to batches `[batch, depth, height, width, channels]`.

Training and evaluation are separate functions. Training shuffles, augments and drops the odd batch at an
epoch's end; evaluation visits every volume exactly once, in the order given. All randomness is a function
of seed, epoch and position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from data_pipelines.orders import epoch_orders
from data_pipelines.slices import SPATIAL_AXES, take_slices

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Mixing = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
SHUFFLED_VOLUMES = 16  # slices of this many volumes are mixed in one shuffle buffer


def training_volumes(
    files: Sequence[Path],
    labels: NDArray[np.int64],
    *,
    shape: tuple[int, int, int, int],
    dtype: str,
    batch_size: int,
    epochs: int,
    seed: int,
    first_epoch: int = 0,
    balanced: bool = False,
    weights: NDArray[np.float32] | None = None,
    augment: Augmentation | None = None,
    mix: Mixing | None = None,
) -> tf.data.Dataset:
    """Batches (voxels float32 [B, D, H, W, C], label int64 [B], weight float32 [B]) of all epochs.

    Args:
        files: prepared volumes, see `cache.fill_cache`.
        labels: [N] class indices.
        shape: of one volume, with channels.
        dtype: of the stored voxels.
        batch_size: volumes per step; at most N.
        epochs: the stream holds `epochs - first_epoch` times `steps_per_epoch` batches.
        seed: of shuffling and augmentation.
        first_epoch: where a resumed run goes on.
        balanced: whether every class is drawn equally often.
        weights: [N] loss weights, by default one.
        augment: a function of voxels and an int32 [2] seed.
        mix: a function of a batch's voxels, its one-hot labels and a seed; labels are then float32 [B, K].
    """
    examples = _ordered_examples(
        labels, epochs=epochs, seed=seed, first_epoch=first_epoch, balanced=balanced, weights=weights
    )
    paths = tf.constant([str(file) for file in files])

    def load(index: tf.Tensor, label: tf.Tensor, weight: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, ...]:
        voxels = read_voxels(paths[index], shape, dtype)
        return (augment(voxels, key) if augment else voxels, label, weight, key)

    def epoch_batches(rows: tf.data.Dataset) -> tf.data.Dataset:
        loaded = rows.map(load, num_parallel_calls=tf.data.AUTOTUNE)
        return loaded.batch(batch_size, drop_remainder=True).map(_finisher(labels, mix))

    # One inner data set per epoch, so that a batch never spans two epochs.
    return examples.flat_map(epoch_batches).prefetch(2).with_options(_ordered())


def training_slices(
    files: Sequence[Path],
    labels: NDArray[np.int64],
    *,
    shape: tuple[int, int, int, int],
    dtype: str,
    batch_size: int,
    epochs: int,
    seed: int,
    axis: str = "depth",
    slab: int = 1,
    first_epoch: int = 0,
    balanced: bool = False,
    weights: NDArray[np.float32] | None = None,
    augment: Augmentation | None = None,
    mix: Mixing | None = None,
) -> tf.data.Dataset:
    """Batches of slices (float32 [B, ., ., slab * C], label, weight) with their volume's label.

    Arguments as for `training_volumes`.

    The volumes were split by subject before they are cut here, so no subject's slices reach two splits. A
    volume is augmented whole, before it is cut: neighbouring slices of a slab stay aligned, and slices see
    the same augmentation as volumes.
    """
    examples = _ordered_examples(
        labels, epochs=epochs, seed=seed, first_epoch=first_epoch, balanced=balanced, weights=weights
    )
    paths = tf.constant([str(file) for file in files])
    count = slices_per_volume(shape, axis)

    def load(index: tf.Tensor, label: tf.Tensor, weight: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, ...]:
        voxels = read_voxels(paths[index], shape, dtype)
        voxels = augment(voxels, key) if augment else voxels
        repeated = (tf.repeat(value[tf.newaxis], count, axis=0) for value in (label, weight, key))
        return (take_slices(voxels, axis=axis, slab=slab), *repeated)

    def epoch_batches(rows: tf.data.Dataset) -> tf.data.Dataset:
        slices = rows.map(load, num_parallel_calls=tf.data.AUTOTUNE).unbatch()
        mixed = slices.shuffle(SHUFFLED_VOLUMES * count, seed=seed, reshuffle_each_iteration=False)
        return mixed.batch(batch_size, drop_remainder=True).map(_finisher(labels, mix))

    return examples.flat_map(epoch_batches).prefetch(2).with_options(_ordered())


def evaluation_volumes(
    files: Sequence[Path], *, shape: tuple[int, int, int, int], dtype: str, batch_size: int
) -> tf.data.Dataset:
    """Batches of voxels float32 [B, D, H, W, C]: every volume exactly once, in order."""
    return (
        tf.data.Dataset.from_tensor_slices([str(file) for file in files])
        .map(lambda path: read_voxels(path, shape, dtype), num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .prefetch(2)
        .with_options(_ordered())
    )


def read_voxels(path: tf.Tensor, shape: tuple[int, int, int, int], dtype: str) -> tf.Tensor:
    """A prepared volume, float32 [D, H, W, C], read in the graph without Python."""
    stored = tf.io.decode_raw(tf.io.read_file(path), dtype)
    return tf.cast(tf.reshape(stored, shape), tf.float32)


def slices_per_volume(shape: tuple[int, int, int, int], axis: str) -> int:
    """How many slices a volume of `shape` gives along `axis`."""
    return sum(shape[:3]) if axis == "all" else shape[SPATIAL_AXES.index(axis)]


def _ordered_examples(
    labels: NDArray[np.int64],
    *,
    epochs: int,
    seed: int,
    first_epoch: int,
    balanced: bool,
    weights: NDArray[np.float32] | None,
) -> tf.data.Dataset:
    """Per epoch a data set of (index, label, weight, key): the key is unique to epoch and position."""
    orders = epoch_orders(labels, epochs=epochs, seed=seed, first_epoch=first_epoch, balanced=balanced)
    loss_weights = np.ones(len(labels), np.float32) if weights is None else weights
    all_labels, all_weights = tf.constant(labels), tf.constant(loss_weights)
    count = len(labels)

    def examples(epoch: tf.Tensor, order: tf.Tensor) -> tf.data.Dataset:
        position = epoch * count + tf.range(count, dtype=tf.int64)
        keys = tf.stack([tf.fill([count], tf.constant(seed, tf.int32)), tf.cast(position, tf.int32)], axis=1)
        return tf.data.Dataset.from_tensor_slices(
            (order, tf.gather(all_labels, order), tf.gather(all_weights, order), keys)
        )

    numbers = np.arange(first_epoch, epochs, dtype=np.int64)
    return tf.data.Dataset.from_tensor_slices((numbers, orders)).map(examples)


def _finisher(labels: NDArray[np.int64], mix: Mixing | None) -> Callable[..., tuple[tf.Tensor, ...]]:
    """The last step of a training batch: the keys go, after the first of them has seeded the mixing."""
    classes = int(labels.max()) + 1

    def finish(
        voxels: tf.Tensor, batch_labels: tf.Tensor, weights: tf.Tensor, keys: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        if mix is None:
            return voxels, batch_labels, weights
        mixed, soft = mix(voxels, tf.one_hot(batch_labels, classes), keys[0])
        return mixed, soft, weights

    return finish


def _ordered() -> tf.data.Options:
    """Parallel, yet in order: speed must not change what a seed gives."""
    options = tf.data.Options()
    options.deterministic = True
    return options
