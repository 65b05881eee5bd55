import itertools

import numpy as np
import pytest
import tensorflow as tf

from voxlift.data_pipelines.augment.build import apply_augment, build_augment, draw_augment
from voxlift.data_pipelines.augment.flip_rotate90 import allowed_quarter_turns
from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import Grid

CUBE = np.arange(4 * 4 * 4 * 2, dtype=np.float32).reshape(4, 4, 4, 2)
BOX = np.arange(5 * 7 * 11, dtype=np.float32).reshape(5, 7, 11, 1)


def vary(voxels, settings, seed, spacing=(1.0, 1.0, 1.0)):
    return build_augment(settings, spacing=spacing)(tf.constant(voxels), tf.constant([0, seed])).numpy()


def results(voxels, settings, count=40, spacing=(1.0, 1.0, 1.0)):
    """The different outcomes of many seeds, as bytes."""
    augment = tf.function(build_augment(settings, spacing=spacing))
    return {augment(tf.constant(voxels), tf.constant([7, seed])).numpy().tobytes() for seed in range(count)}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_certain_flip_reverses_its_axis_and_no_other(axis):
    prob = tuple(float(axis == other) for other in range(3))
    np.testing.assert_array_equal(vary(BOX, Augment(flip_prob=prob), 3), np.flip(BOX, axis))


def test_flips_of_all_axes_are_drawn_independently():
    expected = {
        np.flip(BOX, axes).tobytes() for count in range(4) for axes in itertools.combinations(range(3), count)
    }
    assert results(BOX, Augment(flip_prob=(0.5, 0.5, 0.5)), 80) == expected


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (0, 2)), (2, (0, 1))])
def test_turns_of_a_cube_are_the_three_of_rot90_in_their_plane(axis, plane):
    prob = tuple(float(axis == other) for other in range(3))
    expected = {np.rot90(CUBE, count, plane).tobytes() for count in (1, 2, 3)}
    assert results(CUBE, Augment(turn_prob=prob)) == expected


def test_the_drawn_matrix_states_how_often_the_plane_was_turned():
    settings = Augment(turn_prob=(1.0, 0.0, 0.0))
    for seed in range(8):
        drawn = draw_augment(settings, CUBE.shape, spacing=(1, 1, 1), seed=[1, seed])
        quarter = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
        axis_map = drawn["axis_map"].numpy()
        (count,) = (k for k in range(1, 4) if (np.linalg.matrix_power(quarter, k) == axis_map).all())
        varied = apply_augment(tf.constant(CUBE), drawn, settings)
        np.testing.assert_array_equal(varied, np.rot90(CUBE, count, (1, 2)))


def test_only_half_turns_where_sides_or_spacings_differ():
    assert results(BOX, Augment(turn_prob=(1.0, 0.0, 0.0)), 10) == {np.rot90(BOX, 2, (1, 2)).tobytes()}
    thick = results(CUBE, Augment(turn_prob=(0.0, 1.0, 0.0)), 10, spacing=(3.0, 1.0, 1.0))
    assert thick == {np.rot90(CUBE, 2, (0, 2)).tobytes()}
    assert allowed_quarter_turns(Grid((4, 4, 4), (3.0, 1.0, 1.0)), 0) == (1, 2, 3)
    assert allowed_quarter_turns(Grid((1, 4, 4), (1.0, 1.0, 1.0)), 1) == ()


def test_permutations_are_the_five_true_ones_and_the_two_cyclic_ones_where_handedness_stays():
    orders = list(itertools.permutations(range(3)))[1:]
    transposed = {order: CUBE.transpose(*order, 3).tobytes() for order in orders}
    assert results(CUBE, Augment(permute_prob=1.0), 60) == set(transposed.values())
    cyclic = results(CUBE, Augment(permute_prob=1.0, keep_handedness=True), 30)
    assert cyclic == {transposed[1, 2, 0], transposed[2, 0, 1]}


def test_all_together_reach_the_48_orientations_of_a_cube_or_the_24_without_mirrors():
    wide = {"flip_prob": (0.5,) * 3, "turn_prob": (0.5,) * 3, "permute_prob": 0.7}
    assert len(results(CUBE, Augment(**wide), 500)) == 48
    assert len(results(CUBE, Augment(**wide, keep_handedness=True), 350)) == 24


def test_determinants_tell_that_nothing_mirrors_with_kept_handedness():
    settings = Augment(flip_prob=(0.5,) * 3, turn_prob=(0.5,) * 3, permute_prob=0.7, keep_handedness=True)
    draw = tf.function(
        lambda seed: draw_augment(settings, (4, 4, 4, 1), spacing=(1, 1, 1), seed=seed)["axis_map"]
    )
    assert {round(np.linalg.det(draw(tf.constant([0, seed])))) for seed in range(40)} == {1}


def test_a_slice_is_flipped_turned_and_transposed_in_its_plane_only():
    image = CUBE[0]
    everything = Augment(flip_prob=(1.0, 0.5, 0.5), turn_prob=(0.5, 1.0, 1.0), permute_prob=0.5)
    expected = {
        np.rot90(turned, k).tobytes() for k in range(4) for turned in (image, image.transpose(1, 0, 2))
    }
    assert results(image, everything, 100) == expected


def test_permuting_a_grid_that_is_not_cubic_is_refused_with_the_sides():
    with pytest.raises(
        ValueError, match=r"cubic grid, received depth x height x width = \[5, 7, 11\] voxels"
    ):
        vary(BOX, Augment(permute_prob=0.5), 1)
    with pytest.raises(ValueError, match=r"of \[3\.0, 1\.0, 1\.0\] mm; choose a cubic preprocess.shape"):
        vary(CUBE, Augment(permute_prob=0.5), 1, spacing=(3.0, 1.0, 1.0))
