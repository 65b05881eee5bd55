import numpy as np
import pytest
import tensorflow as tf

from voxlift.data_pipelines.augment.build import apply_augment, draw_augment
from voxlift.data_pipelines.augment.settings import Augment

VOXELS = np.random.default_rng(0).normal(size=(5, 7, 11, 2)).astype(np.float32)


def shifted(voxels, shift, fill):
    result = np.broadcast_to(np.asarray(fill, np.float32), voxels.shape).copy()
    for index in np.ndindex(voxels.shape[:3]):
        source = np.subtract(index, shift)
        if (source >= 0).all() and (source < voxels.shape[:3]).all():
            result[index] = voxels[tuple(source)]
    return result


@pytest.mark.parametrize("seed", range(4))
def test_voxels_move_whole_and_the_channels_minimum_comes_in(seed):
    settings = Augment(shift_prob=1.0, shift_voxels=(1, 2, 11))
    drawn = draw_augment(settings, VOXELS.shape, spacing=(1, 1, 1), seed=[0, seed])
    expected = shifted(VOXELS, drawn["shift"].numpy(), VOXELS.min((0, 1, 2)))
    np.testing.assert_array_equal(apply_augment(VOXELS, drawn, settings), expected)


def test_a_given_fill_value_comes_in_where_asked_for():
    settings = Augment(shift_prob=1.0, shift_voxels=(0, 1, 2), fill_minimum=False, fill=9.0)
    drawn = {"shift": tf.constant([0, 1, -2])}
    np.testing.assert_array_equal(apply_augment(VOXELS, drawn, settings), shifted(VOXELS, (0, 1, -2), 9.0))


def test_every_shift_within_the_range_is_drawn_equally_often():
    settings = Augment(shift_prob=1.0, shift_voxels=(1, 0, 2))
    draw = tf.function(
        lambda seed: draw_augment(settings, (5, 7, 11, 1), spacing=(1, 1, 1), seed=seed)["shift"]
    )
    drawn = np.array([draw(tf.constant([5, seed])) for seed in range(300)])
    assert np.unique(drawn[:, 0], return_counts=True)[0].tolist() == [-1, 0, 1]
    assert (drawn[:, 1] == 0).all()
    counts = np.unique(drawn[:, 2], return_counts=True)
    assert counts[0].tolist() == [-2, -1, 0, 1, 2]
    assert counts[1].min() > 35  # 60 expected, standard deviation 7


def test_a_slice_never_shifts_along_depth():
    settings = Augment(shift_prob=1.0, shift_voxels=(3, 1, 1))
    drawn = [
        draw_augment(settings, (7, 11, 1), spacing=(1, 1, 1), seed=[0, seed])["shift"] for seed in range(5)
    ]
    assert [int(shift[0]) for shift in drawn] == [0] * 5
