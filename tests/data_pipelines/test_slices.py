"""Slices are the planes of a volume, and slabs have the neighbours as channels."""

import numpy as np
import pytest
import tensorflow as tf

from voxlift.data_pipelines.slices import take_slices

SHAPE = (3, 4, 5, 2)


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
