import numpy as np
import psutil
import pytest
import tensorflow as tf

from data_pipelines.pipeline import evaluation_volumes, read_voxels, training_slices, training_volumes
from data_pipelines.slices import take_slices

SHAPE = (3, 4, 5, 2)
LABELS = np.array([0, 1, 0, 1, 1], np.int64)


@pytest.fixture
def files(tmp_path):
    """Volume i holds values around 100 * i, so that a voxel tells where it comes from."""
    paths = []
    for index in range(5):
        voxels = (100 * index + np.arange(np.prod(SHAPE)) % 97).astype(np.float16).reshape(SHAPE)
        paths.append(tmp_path / f"{index}.float16")
        voxels.tofile(paths[-1])
    return paths


def train(files, builder=training_volumes, **changes):
    options = {"shape": SHAPE, "dtype": "float16", "batch_size": 2, "epochs": 2, "seed": 1} | changes
    return list(builder(files, LABELS, **options).as_numpy_iterator())


def volume_of(voxels):
    return voxels.reshape(len(voxels), -1).min(axis=1) // 100


def test_evaluation_sees_every_volume_once_in_order(files):
    batches = list(evaluation_volumes(files, shape=SHAPE, dtype="float16", batch_size=2).as_numpy_iterator())
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(volume_of(np.concatenate(batches)), np.arange(5))


def test_voxels_are_read_as_stored(files):
    voxels = read_voxels(tf.constant(str(files[3])), SHAPE, "float16")
    assert voxels.shape == SHAPE
    np.testing.assert_array_equal(voxels, np.fromfile(files[3], np.float16).reshape(SHAPE).astype(np.float32))


def test_labels_stay_with_their_volumes(files):
    for voxels, labels, weights in train(files):
        assert voxels.shape == (2, *SHAPE)
        assert voxels.dtype == np.float32
        np.testing.assert_array_equal(labels, LABELS[volume_of(voxels).astype(int)])
        np.testing.assert_array_equal(weights, 1)


def test_no_epoch_repeats_a_volume_and_no_batch_spans_two(files):
    batches = train(files)
    assert len(batches) == 4  # two of each epoch; the odd volume is another one in each epoch
    for epoch in (batches[:2], batches[2:]):
        seen = np.concatenate([volume_of(voxels) for voxels, _, _ in epoch])
        assert len(set(seen)) == 4


def test_the_same_seed_gives_the_same_batches(files):
    for one, two in zip(train(files), train(files), strict=True):
        np.testing.assert_array_equal(one[0], two[0])
    assert not all(
        np.array_equal(a[0], b[0]) for a, b in zip(train(files), train(files, seed=2), strict=True)
    )


@pytest.mark.parametrize("builder", [training_volumes, training_slices])
def test_a_resumed_stream_is_the_rest_of_the_whole_one(files, builder):
    whole, rest = train(files, builder, epochs=3), train(files, builder, epochs=3, first_epoch=1)
    assert len(rest) == len(whole) * 2 // 3
    for one, two in zip(whole[-len(rest) :], rest, strict=True):
        np.testing.assert_array_equal(one[0], two[0])


def test_augmentation_gets_another_key_for_every_example(files):
    keys = []

    def augment(voxels, key):
        return voxels * 0 + tf.cast(key[1], tf.float32)

    keys = [key for voxels, _, _ in train(files, augment=augment) for key in voxels[:, 0, 0, 0, 0]]
    assert len(set(keys)) == len(keys) == 8


def test_loss_weights_follow_the_labels(files):
    weights = np.where(LABELS == 1, 2.0, 0.5).astype(np.float32)
    for _, labels, given in train(files, weights=weights):
        np.testing.assert_array_equal(given, np.where(labels == 1, 2.0, 0.5))


def test_slices_carry_their_volumes_label(files):
    seen = 0
    for voxels, labels, weights in train(files, training_slices, batch_size=7):
        assert voxels.shape == (7, 4, 5, 2)
        np.testing.assert_array_equal(labels, LABELS[volume_of(voxels).astype(int)])
        assert weights.shape == (7,)
        seen += 1
    assert seen == 4  # 15 slices an epoch


@pytest.mark.parametrize(
    ("axis", "position", "plane"), [("depth", 0, (4, 5)), ("height", 1, (3, 5)), ("width", 2, (3, 4))]
)
def test_slices_are_the_planes_of_the_volume(axis, position, plane):
    voxels = np.random.default_rng(0).random(SHAPE, np.float32)
    slices = take_slices(tf.constant(voxels), axis=axis).numpy()
    assert slices.shape == (SHAPE[position], *plane, 2)
    np.testing.assert_array_equal(slices, np.moveaxis(voxels, position, 0))


def test_a_slab_holds_the_neighbours_and_repeats_the_border():
    voxels = np.random.default_rng(0).random(SHAPE, np.float32)
    slabs = take_slices(tf.constant(voxels), slab=3).numpy()
    assert slabs.shape == (3, 4, 5, 6)
    np.testing.assert_array_equal(slabs[1], np.concatenate([voxels[0], voxels[1], voxels[2]], axis=-1))
    np.testing.assert_array_equal(slabs[0], np.concatenate([voxels[0], voxels[0], voxels[1]], axis=-1))
    np.testing.assert_array_equal(slabs[2], np.concatenate([voxels[1], voxels[2], voxels[2]], axis=-1))


def resident_bytes():
    return psutil.Process().memory_info().rss


def test_memory_grows_neither_with_epochs_nor_with_volumes(tmp_path):
    """An epoch reads 8 MB, the two runs 170 MB each; a pipeline that kept what it read would grow by that."""
    shape = (32, 64, 64, 1)
    files = []
    for index in range(16):
        files.append(tmp_path / f"{index}.float32")
        np.full(shape, index, np.float32).tofile(files[-1])
    options = {"shape": shape, "dtype": "float32", "batch_size": 2, "seed": 0}

    def run_through(paths, epochs):
        batches = training_volumes(paths, np.zeros(len(paths), np.int64), epochs=epochs, **options)
        return sum(1 for _ in batches)

    run_through(files, 4)
    before = resident_bytes()
    assert run_through(files, 20) == 160
    assert run_through(files * 20, 1) == 160
    assert resident_bytes() - before < 100e6
