"""Training and evaluation streams give the right voxels, labels, weights and order, whatever the options."""

from dataclasses import replace

import numpy as np
import psutil
import pytest
import tensorflow as tf

from voxlift.data_pipelines.augment import Augment
from voxlift.data_pipelines.augment.mixup import build_mixup
from voxlift.data_pipelines.cache.format import PreparedVolumes
from voxlift.data_pipelines.pipeline import (
    TrainingOptions,
    evaluation_volumes,
    examples_per_epoch,
    read_voxels,
    training_slices,
    training_volumes,
)
from voxlift.data_pipelines.slices import choose_slices, take_slices
from voxlift.models.layers.slices import ForegroundSlices, select_slices

SHAPE = (3, 4, 5, 2)
LABELS = np.array([0, 1, 0, 1, 1], np.int64)


@pytest.fixture
def volumes(tmp_path):
    """Volume i holds values around 100 * i, so that a voxel shows where it comes from."""
    paths = []
    for index in range(5):
        voxels = (100 * index + np.arange(np.prod(SHAPE)) % 97).astype(np.float16).reshape(SHAPE)
        paths.append(tmp_path / f"{index}.float16")
        voxels.tofile(paths[-1])
    return PreparedVolumes(tuple(paths), SHAPE, "float16")


def train(volumes, **changes):
    options = TrainingOptions(**{"batch_size": 2, "epochs": 2, "seed": 1} | changes)
    return list(training_volumes(volumes, LABELS, options).as_numpy_iterator())


def train_slices(volumes, axis="depth", slices="all", **changes):
    options = TrainingOptions(**{"batch_size": 2, "epochs": 2, "seed": 1} | changes)
    chosen = choose_slices(volumes, axis=axis, slices=slices)
    return list(training_slices(volumes, LABELS, options, chosen=chosen, axis=axis).as_numpy_iterator())


def volume_of(voxels):
    return voxels.reshape(len(voxels), -1).min(axis=1) // 100


def test_evaluation_sees_every_volume_once_in_order(volumes):
    batches = list(evaluation_volumes(volumes, batch_size=2).as_numpy_iterator())
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(volume_of(np.concatenate(batches)), np.arange(5))


@pytest.fixture
def with_columns(volumes):
    """The volumes with two columns, of which the first is the number of the volume."""
    columns = np.array([[index, -index] for index in range(5)], np.float32)
    return replace(volumes, columns=columns)


def test_columns_stay_with_their_volume(with_columns):
    batches = list(evaluation_volumes(with_columns, batch_size=2).as_numpy_iterator())
    assert [len(batch) for batch in batches] == [1, 1, 1]  # inputs alone
    numbers = np.concatenate([columns[:, 0] for ((_, columns),) in batches])
    np.testing.assert_array_equal(numbers, np.arange(5))
    mirror = {"augment": lambda voxels, _: voxels[:, ::-1]}
    streams = [train(with_columns, **mirror), train_slices(with_columns), train(with_columns, balanced=True)]
    for (voxels, columns), labels, _ in (batch for stream in streams for batch in stream):
        np.testing.assert_array_equal(columns, [[index, -index] for index in volume_of(voxels)])
        np.testing.assert_array_equal(labels, LABELS[columns[:, 0].astype(int)])
    without = train(replace(with_columns, columns=None), **mirror)
    for (voxels, *_), ((same, _), *_) in zip(without, streams[0], strict=True):
        np.testing.assert_array_equal(voxels, same)
    assert len(with_columns.take(slice(1, None, 2)).columns) == len(with_columns.take(slice(1, None, 2))) == 2


def test_mixup_blends_columns_by_the_weights_of_the_voxels(with_columns):
    mix = build_mixup(Augment(mixup_alpha=1.0))
    (voxels, columns), *_ = train(with_columns, mix=mix, batch_size=4)[0]
    means = voxels.reshape(4, -1).min(axis=1) / 100
    np.testing.assert_allclose(columns[:, 0], means, atol=1e-4)


def test_an_image_in_place_of_all_leaves_the_columns(with_columns):
    image = np.full(SHAPE, 7, np.float16)
    batches = evaluation_volumes(with_columns, batch_size=2, image=image).as_numpy_iterator()
    ((voxels, columns),) = next(batches)
    assert np.unique(voxels).tolist() == [7]
    np.testing.assert_array_equal(columns[:, 0], [0, 1])


def test_voxels_are_read_as_stored(volumes):
    voxels = read_voxels(tf.constant(str(volumes.files[3])), SHAPE, "float16")
    assert voxels.shape == SHAPE
    assert voxels.dtype == tf.float16
    np.testing.assert_array_equal(voxels, list(volumes.arrays())[3])


@pytest.mark.parametrize("builder", [train, train_slices])
def test_only_augmentation_and_mixing_make_voxels_float32(volumes, builder):
    assert builder(volumes)[0][0].dtype == np.float16
    assert builder(volumes, augment=lambda voxels, _: voxels)[0][0].dtype == np.float32
    mixed = builder(volumes, mix=lambda voxels, labels, _: (voxels, labels))
    assert mixed[0][0].dtype == np.float32


def test_labels_stay_with_their_volumes(volumes):
    for voxels, labels, weights in train(volumes):
        assert voxels.shape == (2, *SHAPE)
        np.testing.assert_array_equal(labels, LABELS[volume_of(voxels).astype(int)])
        np.testing.assert_array_equal(weights, 1)


def test_no_epoch_repeats_a_volume_and_no_batch_spans_two_epochs(volumes):
    batches = train(volumes)
    assert len(batches) == 4  # two of each epoch; the odd volume is another one in each epoch
    for epoch in (batches[:2], batches[2:]):
        seen = np.concatenate([volume_of(voxels) for voxels, _, _ in epoch])
        assert len(set(seen)) == 4


def test_the_same_seed_gives_the_same_batches(volumes):
    for one, two in zip(train(volumes), train(volumes), strict=True):
        np.testing.assert_array_equal(one[0], two[0])
    assert not all(
        np.array_equal(a[0], b[0]) for a, b in zip(train(volumes), train(volumes, seed=2), strict=True)
    )


@pytest.mark.parametrize("builder", [train, train_slices])
def test_a_resumed_stream_is_the_rest_of_the_full_stream(volumes, builder):
    full, rest = builder(volumes, epochs=3), builder(volumes, epochs=3, first_epoch=1)
    assert len(rest) == len(full) * 2 // 3
    for one, two in zip(full[-len(rest) :], rest, strict=True):
        np.testing.assert_array_equal(one[0], two[0])


@pytest.mark.parametrize("builder", [train, train_slices])
def test_the_shards_of_a_batch_together_are_the_batch(volumes, builder):
    def augment(voxels, key):
        return voxels + tf.cast(key[1], tf.float32)

    def mix(voxels, labels, key):
        order = tf.constant([2, 3, 0, 1])  # partners from another shard
        return voxels + tf.gather(voxels, order), labels + tf.cast(key[1], tf.float32)

    for options in ({}, {"augment": augment}, {"mix": mix}):
        full = builder(volumes, batch_size=4, **options)
        shards = [builder(volumes, batch_size=4, shard=(index, 2), **options) for index in range(2)]
        assert len(full) >= 2
        for batch, first, second in zip(full, *shards, strict=True):
            for value, *halves in zip(batch, first, second, strict=True):
                assert len(halves[0]) == 2
                np.testing.assert_array_equal(value, np.concatenate(halves))


def test_augmentation_gets_another_key_for_every_example(volumes):
    def augment(voxels, key):
        return voxels * 0 + tf.cast(key[1], tf.float32)

    keys = [key for voxels, _, _ in train(volumes, augment=augment) for key in voxels[:, 0, 0, 0, 0]]
    assert len(set(keys)) == len(keys) == 8


def test_loss_weights_follow_the_labels(volumes):
    weights = np.where(LABELS == 1, 2.0, 0.5).astype(np.float32)
    for _, labels, given in train(volumes, weights=weights):
        np.testing.assert_array_equal(given, np.where(labels == 1, 2.0, 0.5))


def test_slices_carry_their_volumes_label(volumes):
    seen = 0
    for voxels, labels, weights in train_slices(volumes, batch_size=7):
        assert voxels.shape == (7, 4, 5, 2)
        np.testing.assert_array_equal(labels, LABELS[volume_of(voxels).astype(int)])
        assert weights.shape == (7,)
        seen += 1
    assert seen == 4  # 15 slices an epoch


@pytest.fixture
def bright_spots(tmp_path):
    """Five volumes with a bright box each, of other sides and at another place."""
    rng, paths = np.random.default_rng(3), []
    for index in range(5):
        voxels = rng.normal(0, 0.1, (7, 7, 7, 2))
        low, side = rng.integers(0, 4, 3), rng.integers(1, 4, 3)
        voxels[tuple(slice(a, a + b) for a, b in zip(low, side, strict=True))] += 3
        paths.append(tmp_path / f"spot{index}.float16")
        voxels.astype(np.float16).tofile(paths[-1])
    return PreparedVolumes(tuple(paths), (7, 7, 7, 2), "float16")


def bytes_of(plane):
    return plane.tobytes()


@pytest.mark.parametrize("slices", ["all", "central", "foreground"])
@pytest.mark.parametrize("axis", ["depth", "height", "width", "all"])
def test_training_sees_the_slices_that_are_scored(bright_spots, axis, slices):
    arrays = np.stack(list(bright_spots.arrays())).astype(np.float32)
    chosen = choose_slices(bright_spots, axis=axis, slices=slices)
    parts = select_slices(bright_spots.shape, axis=axis, slices=slices)
    expected = [
        (np.arange(7) >= part.first)
        & (np.arange(7) < part.first + part.count)
        & ((np.asarray(ForegroundSlices(part.axis)(arrays)) > 0) if slices == "foreground" else True)
        & np.ones((5, 1), bool)
        for part in parts
    ]
    np.testing.assert_array_equal(chosen, np.concatenate(expected, axis=1))
    seen = np.concatenate([b[0] for b in train_slices(bright_spots, axis, slices, batch_size=1, epochs=1)])
    wanted = [
        plane
        for voxels, row in zip(arrays, chosen, strict=True)
        for plane in take_slices(tf.constant(voxels), axis=axis).numpy()[row]
    ]
    assert len(seen) == len(wanted) == chosen.sum()
    assert sorted(map(bytes_of, seen.astype(np.float32))) == sorted(map(bytes_of, wanted))


def test_epochs_of_unequal_slices_have_equal_steps(bright_spots):
    """Balanced epochs repeat volumes of the rare class, which here have fewer slices than others."""
    chosen = choose_slices(bright_spots, slices="foreground")
    options = TrainingOptions(batch_size=2, epochs=6, seed=0, balanced=True)
    steps = examples_per_epoch(LABELS, options, chosen.sum(axis=1)) // 2
    for first in (0, 4):
        batches = train_slices(
            bright_spots, slices="foreground", epochs=6, first_epoch=first, balanced=True, seed=0
        )
        assert len(batches) == steps * (6 - first)


def resident_bytes():
    return psutil.Process().memory_info().rss


def test_memory_grows_neither_with_epochs_nor_with_volumes(tmp_path):
    """An epoch reads 8 MB, the two runs 170 MB each; a pipeline that kept its volumes would grow by that."""
    shape = (32, 64, 64, 1)
    files = []
    for index in range(16):
        files.append(tmp_path / f"{index}.float32")
        np.full(shape, index, np.float32).tofile(files[-1])

    def run_through(paths, epochs):
        options = TrainingOptions(batch_size=2, epochs=epochs, seed=0)
        volumes = PreparedVolumes(tuple(paths), shape, "float32")
        return sum(1 for _ in training_volumes(volumes, np.zeros(len(paths), np.int64), options))

    run_through(files, 4)
    before = resident_bytes()
    assert run_through(files, 20) == 160
    assert run_through(files * 20, 1) == 160
    assert resident_bytes() - before < 100e6
