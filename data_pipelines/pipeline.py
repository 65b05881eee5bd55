"""THE visible column: from prepared files to batches `[batch, depth, height, width, channels]`.

Training and evaluation are separate functions. Training shuffles, augments and drops the odd batch at an
epoch's end; evaluation visits every volume exactly once, in the order given. All randomness is a function
of seed, epoch and position.

Voxels that nothing varies are handed over in the type in which they are stored, float16 as a rule: the
network casts them at its door, which costs nothing beside the step itself, while a cast on the way would
double what every later copy moves. Augmentation and mixing compute in float32 and hand that over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from voxlift.data_pipelines.cache.prepared import PreparedVolumes, Shape
from voxlift.data_pipelines.shuffling import epoch_orders, least_examples
from voxlift.data_pipelines.slices import take_slices

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Mixing = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
SHUFFLED_VOLUMES = 16  # slices of this many volumes are mixed in one shuffle buffer


@dataclass(frozen=True, eq=False)
class TrainingOptions:
    """How examples become a stream of training batches, for volumes and slices alike.

    Attributes:
        batch_size: examples per step; at most as many as there are.
        epochs: the stream holds `epochs - first_epoch` times an epoch's batches.
        seed: of shuffling and augmentation.
        first_epoch: where a resumed run goes on.
        balanced: whether every class is drawn equally often.
        weights: [N] loss weights, by default one.
        augment: a function of one volume's voxels, float32, and an int32 [2] seed.
        mix: a function of a batch's voxels, float32, its one-hot labels and a seed; labels are then float32
            [B, K].
        part: (index, count): the stream gives the index-th of so many equal parts of each batch, in order.
            Together the parts are the batches that the stream gives without.
    """

    batch_size: int
    epochs: int
    seed: int
    first_epoch: int = 0
    balanced: bool = False
    weights: NDArray[np.float32] | None = None
    augment: Augmentation | None = None
    mix: Mixing | None = None
    part: tuple[int, int] = (0, 1)


def training_volumes(
    volumes: PreparedVolumes, labels: NDArray[np.int64], options: TrainingOptions
) -> tf.data.Dataset:
    """Batches (voxels [B, D, H, W, C], label int64 [B], weight float32 [B]) of all epochs.

    Voxels are float32 where they are augmented or mixed, else of the stored type.

    Args:
        volumes: what trains.
        labels: [N] class indices.
        options: batches, epochs, seed and variation.
    """
    # Each epoch gives whole batches of rows: so no batch spans two, and reading never pauses in between.
    whole = len(volumes) // options.batch_size * options.batch_size
    rows = _ordered_examples(labels, options).flat_map(lambda epoch: epoch.take(whole))
    size, is_mixed = options.batch_size, options.mix is not None
    if options.part[1] > 1 and not is_mixed:  # who is mixed may have a partner in any part: all are read
        rows, size = _own_part(rows.batch(size), options).unbatch(), size // options.part[1]
    loaded = rows.map(_loader(volumes, options), num_parallel_calls=tf.data.AUTOTUNE)
    batches = _mixed(loaded.batch(size, drop_remainder=True), labels, options.mix)
    parts = _own_part(batches, options) if is_mixed else batches
    return parts.prefetch(2).with_options(_ordered())


def training_slices(
    volumes: PreparedVolumes,
    labels: NDArray[np.int64],
    options: TrainingOptions,
    *,
    chosen: NDArray[np.bool_],
    axis: str = "depth",
    slab: int = 1,
) -> tf.data.Dataset:
    """Batches of slices ([B, ., ., slab * C], label, weight) with their volume's label.

    The volumes were split by subject before they are cut here, so no subject's slices reach two splits. A
    volume is augmented whole, before it is cut: neighbouring slices of a slab stay aligned, and slices see
    the same augmentation as volumes.

    Args:
        volumes: what trains.
        labels: [N] class indices.
        options: batches, epochs, seed and variation.
        chosen: [N, S] which slices of each volume train, see `slices.choose_slices`.
        axis: the axis that is cut, or `all` three of a cube.
        slab: how many neighbouring slices (odd) become channels.
    """
    load = _loader(volumes, options)
    choices, buffer = tf.constant(chosen), SHUFFLED_VOLUMES * chosen.shape[1]
    steps = examples_per_epoch(labels, options, chosen.sum(axis=1)) // options.batch_size

    def cut(index: tf.Tensor, *example: tf.Tensor) -> tuple[tf.Tensor, ...]:
        voxels, *values = load(index, *example)
        kept = tf.boolean_mask(take_slices(voxels, axis=axis, slab=slab), choices[index])
        return (kept, *(tf.repeat(value[tf.newaxis], tf.shape(kept)[0], axis=0) for value in values))

    def epoch_batches(rows: tf.data.Dataset) -> tf.data.Dataset:
        slices = rows.map(cut, num_parallel_calls=tf.data.AUTOTUNE).unbatch()
        mixed = slices.shuffle(buffer, seed=options.seed, reshuffle_each_iteration=False)
        batches = mixed.batch(options.batch_size, drop_remainder=True)
        # Volumes may bring unequal numbers of slices, yet every epoch has as many steps as the shortest.
        return _own_part(_mixed(batches.take(steps), labels, options.mix), options)

    return _ordered_examples(labels, options).flat_map(epoch_batches).prefetch(2).with_options(_ordered())


def evaluation_volumes(volumes: PreparedVolumes, *, batch_size: int) -> tf.data.Dataset:
    """Batches of voxels [B, D, H, W, C], of the stored type: every volume exactly once, in order.

    Args:
        volumes: What is scored.
        batch_size: Volumes per batch; the last one may be smaller.
    """
    return (
        tf.data.Dataset.from_tensor_slices([str(file) for file in volumes.files])
        .map(
            lambda path: read_voxels(path, volumes.shape, volumes.dtype), num_parallel_calls=tf.data.AUTOTUNE
        )
        .batch(batch_size)
        .prefetch(2)
        .with_options(_ordered())
    )


def examples_per_epoch(
    labels: NDArray[np.int64], options: TrainingOptions, per_volume: NDArray[np.int64]
) -> int:
    """How many examples every epoch of the whole run has at least, wherever a resumed one begins.

    Args:
        labels: [N] class indices.
        options: epochs, seed and balance; the batch size does not matter.
        per_volume: [N] examples that each volume brings: one, or so many slices.
    """
    return least_examples(per_volume, _orders(labels, options, first_epoch=0))


def read_voxels(path: tf.Tensor, shape: Shape, dtype: str) -> tf.Tensor:
    """A prepared volume [D, H, W, C] in its stored type, read in the graph without Python.

    Args:
        path: Scalar string tensor.
        shape: Depth, height, width and channels.
        dtype: In which the file holds them, see `PreparedVolumes`.
    """
    return tf.reshape(tf.io.decode_raw(tf.io.read_file(path), dtype), shape)


def _loader(volumes: PreparedVolumes, options: TrainingOptions) -> Callable[..., tuple[tf.Tensor, ...]]:
    """A function of a row (index, label, weight, key): voxels, label, weight, and the key to mix by."""
    paths, augment = tf.constant([str(file) for file in volumes.files]), options.augment

    def load(index: tf.Tensor, label: tf.Tensor, weight: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, ...]:
        voxels = read_voxels(paths[index], volumes.shape, volumes.dtype)
        varied = augment(tf.cast(voxels, tf.float32), key) if augment else voxels
        return (varied, label, weight, key) if options.mix else (varied, label, weight)

    return load


def _own_part(batches: tf.data.Dataset, options: TrainingOptions) -> tf.data.Dataset:
    """The batches, of which only the part that the options name is kept."""
    index, count = options.part
    if count == 1:
        return batches
    size = options.batch_size // count
    first, last = index * size, (index + 1) * size
    return batches.map(lambda *values: tuple(value[first:last] for value in values))


def _ordered_examples(labels: NDArray[np.int64], options: TrainingOptions) -> tf.data.Dataset:
    """Per epoch a data set of (index, label, weight, key): the key is unique to epoch and position."""
    first, count = options.first_epoch, len(labels)
    orders = _orders(labels, options, first_epoch=first)
    loss_weights = np.ones(count, np.float32) if options.weights is None else options.weights
    all_labels, all_weights = tf.constant(labels), tf.constant(loss_weights)

    def examples(epoch: tf.Tensor, order: tf.Tensor) -> tf.data.Dataset:
        position = epoch * count + tf.range(count, dtype=tf.int64)
        seeds = tf.fill([count], tf.constant(options.seed, tf.int32))
        keys = tf.stack([seeds, tf.cast(position, tf.int32)], axis=1)
        return tf.data.Dataset.from_tensor_slices(
            (order, tf.gather(all_labels, order), tf.gather(all_weights, order), keys)
        )

    numbers = np.arange(first, options.epochs, dtype=np.int64)
    return tf.data.Dataset.from_tensor_slices((numbers, orders)).map(examples)


def _orders(labels: NDArray[np.int64], options: TrainingOptions, *, first_epoch: int) -> NDArray[np.int64]:
    return epoch_orders(
        labels,
        epochs=options.epochs,
        seed=options.seed,
        first_epoch=first_epoch,
        balanced=options.balanced,
    )


def _mixed(batches: tf.data.Dataset, labels: NDArray[np.int64], mix: Mixing | None) -> tf.data.Dataset:
    """The batches with their examples mixed where that is asked for, by the key of the first of each."""
    if mix is None:
        return batches
    classes = int(labels.max()) + 1

    def blend(
        voxels: tf.Tensor, batch_labels: tf.Tensor, weights: tf.Tensor, keys: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        mixed, soft = mix(tf.cast(voxels, tf.float32), tf.one_hot(batch_labels, classes), keys[0])
        return mixed, soft, weights

    return batches.map(blend)


def _ordered() -> tf.data.Options:
    """Parallel, yet in order: speed must not change what a seed gives."""
    options = tf.data.Options()
    options.deterministic = True
    return options


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
