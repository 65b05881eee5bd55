"""From cached files to batches `[B, D, H, W, C]`, step by step, as `tf.data`.

Read from top to bottom: evaluation, training on volumes, training on slices, then the steps that they share,
and last the order of the records in each epoch and the balance of rare classes.
Training shuffles, augments and drops the last incomplete batch of an epoch; evaluation gives every volume
exactly once, in order. The order of volumes and the augmentation depend on seed, epoch and position; slices
are shuffled once more among those of neighbouring volumes, by the seed alone.

Where volumes have columns of a table, a batch begins with a pair (voxels, columns [B, F]) in place of the
voxels.

Voxels that are not augmented stay in the type in which they are stored, usually float16: the network casts
them, which costs nothing compared with a step, while a cast here would double the size of every later copy.
Augmentation and mixing compute in float32 and return float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from voxlift.data_pipelines.cache.format import PreparedVolumes, Shape
from voxlift.data_pipelines.slices import take_slices

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Mixing = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
SHUFFLE_BUFFER_VOLUMES = 16  # slices of this many volumes are shuffled together


@dataclass(frozen=True, eq=False)
class TrainingOptions:
    """The options of a stream of training batches, for volumes and slices alike.

    Attributes:
        batch_size: Examples per step; at most as many as there are.
        epochs: The stream has `epochs - first_epoch` times an epoch's batches.
        seed: Of shuffling and augmentation.
        first_epoch: Where a resumed run starts.
        balanced: Whether every class is drawn equally often.
        weights: [N] loss weights, by default one.
        augment: A function of one volume's voxels (float32) and an int32 [2] key.
        mix: A function of a batch's voxels (float32), its one-hot labels and a key; labels are then float32
            [B, K].
        targets: [N, T] what batches hold in place of the class index, such as findings or a number; the
            labels then only balance the volumes.
        shard: (index, count): the stream gives the index-th of `count` equal parts of each batch, in order.
            All shards together are the batches of the stream without shards.
    """

    batch_size: int
    epochs: int
    seed: int
    first_epoch: int = 0
    balanced: bool = False
    weights: NDArray[np.float32] | None = None
    augment: Augmentation | None = None
    mix: Mixing | None = None
    targets: NDArray[np.float32] | None = None
    shard: tuple[int, int] = (0, 1)


def evaluation_volumes(
    volumes: PreparedVolumes, *, batch_size: int, image: NDArray[np.floating] | None = None
) -> tf.data.Dataset:
    """Return batches of voxels [B, D, H, W, C], of the stored type: every volume exactly once, in order.

    With columns a batch is a tuple of one, the pair (voxels, columns), which Keras takes for inputs alone.

    Args:
        volumes: The volumes to score.
        batch_size: Volumes per batch; the last one may be smaller.
        image: Voxels [D, H, W, C] in place of those of every volume, to score the columns alone.
    """
    paths = tf.data.Dataset.from_tensor_slices([str(file) for file in volumes.files])  # string []
    voxels = paths.map(
        lambda path: read_voxels(path, volumes.shape, volumes.dtype), num_parallel_calls=tf.data.AUTOTUNE
    )  # [D, H, W, C]
    if image is not None:
        voxels = tf.data.Dataset.from_tensors(image).repeat(len(volumes))
    batches = voxels.batch(batch_size)  # [B, D, H, W, C]
    if volumes.columns is not None:
        columns = tf.data.Dataset.from_tensor_slices(volumes.columns).batch(batch_size)  # [B, F]
        batches = tf.data.Dataset.zip((batches, columns)).map(lambda *pair: (pair,))
    return batches.prefetch(2).with_options(_deterministic())


def training_volumes(
    volumes: PreparedVolumes, labels: NDArray[np.int64], options: TrainingOptions
) -> tf.data.Dataset:
    """Return batches (voxels [B, D, H, W, C], label int64 [B], weight float32 [B]) of all epochs.

    Voxels are float32 where they are augmented or mixed, else of the stored type.

    Args:
        volumes: The training volumes.
        labels: [N] class indices.
        options: Batches, epochs, seed and augmentation.
    """
    size, (_, shards), mix = options.batch_size, options.shard, options.mix
    # Complete batches of rows per epoch: no batch spans two epochs, and reading never pauses between them.
    per_epoch = len(volumes) // size * size
    rows = _epochs(labels, options).flat_map(lambda epoch: epoch.take(per_epoch))  # index, label, weight, key
    if shards > 1 and mix is None:
        # Before reading, so that a process reads only its own shard.
        rows, size = _take_shard(rows.batch(size), options).unbatch(), size // shards
    read = _build_reader(volumes, options)
    examples = rows.map(read, num_parallel_calls=tf.data.AUTOTUNE)  # [D, H, W, C], (columns,) label, weight
    batches = examples.batch(size, drop_remainder=True)  # [B, D, H, W, C], [B], [B]
    if mix is not None:
        batches = _mix_batches(batches, labels, options)  # [B, D, H, W, C], [B, K], [B]
        # After mixing, since an example may be mixed with one of another shard.
        batches = _take_shard(batches, options)
    return _pair_columns(batches, volumes).prefetch(2).with_options(_deterministic())


def training_slices(
    volumes: PreparedVolumes,
    labels: NDArray[np.int64],
    options: TrainingOptions,
    *,
    chosen: NDArray[np.bool_],
    axis: str = "depth",
    slab: int = 1,
) -> tf.data.Dataset:
    """Return batches of slices ([B, ., ., slab * C], label, weight) with their volume's label.

    Volumes are split by subject before they are cut here, so no subject has slices in two splits. A volume is
    augmented before it is cut: neighbouring slices of a slab stay aligned, and slices get the same
    augmentation as volumes.

    Args:
        volumes: The training volumes.
        labels: [N] class indices.
        options: Batches, epochs, seed and augmentation.
        chosen: [N, S] which slices of each volume are used, see `slices.choose_slices`.
        axis: The axis that is cut, or `all` three of a cube.
        slab: Number (odd) of neighbouring slices that become channels.
    """
    read, is_chosen = _build_reader(volumes, options), tf.constant(chosen)
    steps = examples_per_epoch(labels, options, chosen.sum(axis=1)) // options.batch_size

    def cut(index: tf.Tensor, *example: tf.Tensor) -> tuple[tf.Tensor, ...]:
        voxels, *values = read(index, *example)  # [D, H, W, C]
        slices = take_slices(voxels, axis=axis, slab=slab)  # [S, ., ., slab * C]
        kept = tf.boolean_mask(slices, is_chosen[index])  # [kept, ., ., slab * C]
        return (kept, *(tf.repeat(value[tf.newaxis], tf.shape(kept)[0], axis=0) for value in values))

    def batch_epoch(rows: tf.data.Dataset) -> tf.data.Dataset:
        slices = rows.map(cut, num_parallel_calls=tf.data.AUTOTUNE).unbatch()  # [., ., slab * C]
        slices = _shuffle_slices(slices, chosen, options)
        # Volumes may have unequal numbers of slices, but every epoch has as many steps as the shortest.
        batches = slices.batch(options.batch_size, drop_remainder=True).take(steps)  # [B, ., ., slab * C]
        if options.mix is not None:
            batches = _mix_batches(batches, labels, options)  # [B, ., ., slab * C], [B, K], [B]
        return _take_shard(batches, options)

    batches = _pair_columns(_epochs(labels, options).flat_map(batch_epoch), volumes)
    return batches.prefetch(2).with_options(_deterministic())


def examples_per_epoch(
    labels: NDArray[np.int64], options: TrainingOptions, per_volume: NDArray[np.int64]
) -> int:
    """Return how many examples every epoch of the whole run has at least, wherever a resumed one starts.

    Args:
        labels: [N] class indices.
        options: Epochs, seed and balance; the batch size is not used.
        per_volume: [N] examples of each volume: one, or its number of slices.
    """
    orders = _orders(labels, options, range(options.epochs))  # [epochs, N]
    return int(per_volume[orders].sum(axis=1).min())


def records_in_batch(
    labels: NDArray[np.int64],
    options: TrainingOptions,
    *,
    step: int,
    chosen: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return the indices [B] of the records in a batch of `training_volumes` or `training_slices`.

    Args:
        labels: [N] class indices, as for the stream.
        options: As for the stream; the batch is one of the epoch `first_epoch`.
        step: The batch within the epoch, from 0.
        chosen: [N, S] as for a stream of slices; None for one of volumes.
    """
    epoch, first = options.first_epoch, step * options.batch_size
    (order,) = _orders(labels, options, range(epoch, epoch + 1))  # [N]
    if chosen is None:
        return np.asarray(order[first : first + options.batch_size])
    rows = tf.data.Dataset.from_tensor_slices(np.repeat(order, chosen.sum(axis=1)[order]))  # []
    shuffled = _shuffle_slices(rows, chosen, options)
    return np.asarray(list(shuffled.skip(first).take(options.batch_size).as_numpy_iterator()), np.int64)


def _epochs(labels: NDArray[np.int64], options: TrainingOptions) -> tf.data.Dataset:
    """Return for each epoch a data set of (index, label, weight, key); keys differ by epoch and position."""
    count, numbers = len(labels), range(options.first_epoch, options.epochs)
    loss_weights = np.ones(count, np.float32) if options.weights is None else options.weights
    all_labels = tf.constant(labels if options.targets is None else options.targets)
    all_weights = tf.constant(loss_weights)

    def examples(epoch: tf.Tensor, order: tf.Tensor) -> tf.data.Dataset:
        position = epoch * count + tf.range(count, dtype=tf.int64)
        seeds = tf.fill([count], tf.constant(options.seed, tf.int32))
        keys = tf.stack([seeds, tf.cast(position, tf.int32)], axis=1)  # [N, 2]
        return tf.data.Dataset.from_tensor_slices(
            (order, tf.gather(all_labels, order), tf.gather(all_weights, order), keys)
        )

    epochs = (np.array(numbers, np.int64), _orders(labels, options, numbers))  # [epochs], [epochs, N]
    return tf.data.Dataset.from_tensor_slices(epochs).map(examples)


def _orders(labels: NDArray[np.int64], options: TrainingOptions, epochs: range) -> NDArray[np.int64]:
    return epoch_orders(
        labels, epochs=epochs.stop, seed=options.seed, first_epoch=epochs.start, balanced=options.balanced
    )


def _build_reader(volumes: PreparedVolumes, options: TrainingOptions) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Return a function from (index, label, weight, key) to voxels, label, weight (and key, to mix).

    Columns, where the volumes have some, follow the voxels.
    """
    paths, augment = tf.constant([str(file) for file in volumes.files]), options.augment
    columns = () if volumes.columns is None else (tf.constant(volumes.columns),)

    def read(index: tf.Tensor, label: tf.Tensor, weight: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, ...]:
        voxels = read_voxels(paths[index], volumes.shape, volumes.dtype)  # [D, H, W, C], stored type
        if augment:
            voxels = augment(tf.cast(voxels, tf.float32), key)  # [D, H, W, C], float32
        example = (voxels, *(values[index] for values in columns), label, weight)
        return (*example, key) if options.mix else example

    return read


def _pair_columns(batches: tf.data.Dataset, volumes: PreparedVolumes) -> tf.data.Dataset:
    """Return batches with the pair (voxels, columns) as their input, where the volumes have columns."""
    if volumes.columns is None:
        return batches
    return batches.map(lambda voxels, columns, *values: ((voxels, columns), *values))


def read_voxels(path: tf.Tensor, shape: Shape, dtype: str) -> tf.Tensor:
    """Return a prepared volume [D, H, W, C] in its stored type, read in the graph without Python.

    Args:
        path: Scalar string tensor.
        shape: Depth, height, width and channels.
        dtype: The stored type, see `PreparedVolumes`.
    """
    return tf.reshape(tf.io.decode_raw(tf.io.read_file(path), dtype), shape)


def _shuffle_slices(
    slices: tf.data.Dataset, chosen: NDArray[np.bool_], options: TrainingOptions
) -> tf.data.Dataset:
    buffer = SHUFFLE_BUFFER_VOLUMES * chosen.shape[1]
    return slices.shuffle(buffer, seed=options.seed, reshuffle_each_iteration=False)


def _mix_batches(
    batches: tf.data.Dataset, labels: NDArray[np.int64], options: TrainingOptions
) -> tf.data.Dataset:
    """Return the batches with their examples mixed, by the key of the first example of each batch."""
    classes, mix = int(labels.max()) + 1, options.mix
    assert mix is not None  # noqa: S101 - for the type checker: the callers ask before

    def blend(voxels: tf.Tensor, *values: tf.Tensor) -> tuple[tf.Tensor, ...]:
        *columns, batch_labels, weights, keys = values
        rows = tf.one_hot(batch_labels, classes) if options.targets is None else batch_labels  # [B, K]
        mixed, soft_labels = mix(tf.cast(voxels, tf.float32), rows, keys[0])
        blended = [mix(one, rows, keys[0])[0] for one in columns]  # by the same pairs and weights
        return mixed, *blended, soft_labels, weights

    return batches.map(blend)


def _take_shard(batches: tf.data.Dataset, options: TrainingOptions) -> tf.data.Dataset:
    """Return the part of each batch that `options.shard` names."""
    index, count = options.shard
    if count == 1:
        return batches
    size = options.batch_size // count
    first, last = index * size, (index + 1) * size
    return batches.map(lambda *values: tuple(value[first:last] for value in values))


def _deterministic() -> tf.data.Options:
    """Return options for parallel steps in a fixed order: speed must not change the result of a seed."""
    options = tf.data.Options()
    options.deterministic = True
    return options


def epoch_orders(
    labels: NDArray[np.int64], *, epochs: int, seed: int, first_epoch: int = 0, balanced: bool = False
) -> NDArray[np.int64]:
    """Return the record indices of each epoch, in order.

    Args:
        labels: [N] class indices.
        epochs: Number of epochs of the whole run.
        seed: Of the whole run.
        first_epoch: Number of epochs that are left out at the beginning (a resumed run).
        balanced: Draw every class equally often, rare ones repeatedly, instead of each record once.

    Returns:
        int64 [epochs - first_epoch, N].
    """
    draw = balanced_order if balanced else _shuffled_order
    rows = [draw(labels.tolist(), seed=seed, epoch=epoch) for epoch in range(first_epoch, epochs)]
    return np.stack(rows).astype(np.int64) if rows else np.empty((0, len(labels)), np.int64)


def balanced_order(labels: Sequence[int], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return record indices for one epoch in which all classes are drawn equally often, up to one record.

    The epoch keeps its length. All records of a rare class are drawn, in a new order, before any of them is
    drawn again; of a frequent class each epoch has another random part. The same seed and epoch give the same
    order.

    Args:
        labels: Class indices of the training records.
        seed: Of the run.
        epoch: From 0; each has an order of its own.

    Raises:
        ValueError: A class has no record.
    """
    counts = _count_labels(labels, None)
    rng = np.random.default_rng((seed, epoch))
    # The classes that get the remaining records change from epoch to epoch.
    shares = np.full(len(counts), len(labels) // len(counts))
    shares[rng.permutation(len(counts))[: len(labels) % len(counts)]] += 1
    drawn = [
        _draw_records(np.flatnonzero(np.asarray(labels) == label), int(share), rng)
        for label, share in enumerate(shares)
    ]
    return rng.permutation(np.concatenate(drawn)).astype(np.int64)


def class_weights(labels: Sequence[int], *, classes: int | None = None) -> dict[int, float]:
    """Return each class's loss weight: the mean class size divided by its own; over records their mean is 1.

    >>> class_weights([0, 0, 0, 1])
    {0: 0.6666666666666666, 1: 2.0}

    Args:
        labels: Class indices of the training records.
        classes: Number of classes; by default from the highest label.

    Raises:
        ValueError: A class has no record, so that no weight can balance it.
    """
    counts = _count_labels(labels, classes)
    return {label: float(counts.mean() / count) for label, count in enumerate(counts)}


def _shuffled_order(labels: list[int], *, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(len(labels))


def _draw_records(records: NDArray[np.intp], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    rounds = -(-count // len(records))
    return np.concatenate([records[:0], *(rng.permutation(records) for _ in range(rounds))])[:count]


def _count_labels(labels: Sequence[int], classes: int | None) -> NDArray[np.intp]:
    counts = np.bincount(np.asarray(labels, np.int64), minlength=classes or 1)
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        names = ", ".join(map(str, empty))
        raise ValueError(f"No training record is of class {names}, so classes cannot be balanced.")
    return counts
