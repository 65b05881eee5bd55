"""Promises of the interpolation axis by axis: it is ITK's, faster, for every order of axes and every type."""

import itertools

import numpy as np
import pytest

from voxlift.data_pipelines.geometry import Grid
from voxlift.data_pipelines.preprocess import resample as room
from voxlift.data_pipelines.preprocess.resample import interpolate_straight, is_straight

SHAPE = (9, 11, 13)
ORDERS = list(itertools.permutations(range(3)))


def grid_of(order, signs=(1, 1, 1), steps=(0.7, 1.3, 2.1), start=(0.2, -1.7, 0.4), shape=(8, 10, 7)):
    """Axis n of the output runs along stored axis order[n], forwards or backwards, past both ends."""
    to_source = np.zeros((4, 4))
    to_source[3, 3] = 1
    for axis, (source, sign, step) in enumerate(zip(order, signs, steps, strict=True)):
        to_source[source, axis] = sign * step
        to_source[source, 3] = start[axis] if sign > 0 else SHAPE[source] - 1 - start[axis]
    return Grid(shape, to_source)


def by_itk(voxels, grid, fill):
    return room._interpolate(voxels, grid, room._INTERPOLATORS["linear"], fill)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_every_order_and_direction_of_axes_agrees_with_itk(order, signs):
    voxels = np.random.default_rng(0).normal(100, 50, SHAPE).astype(np.float32)
    grid = grid_of(order, signs)
    ours, theirs = interpolate_straight(voxels, grid, -7.0), by_itk(voxels, grid, -7.0)
    assert (theirs == -7).any()
    np.testing.assert_array_equal(ours == -7, theirs == -7)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)
    assert ours.dtype == np.float32
    assert ours.flags.f_contiguous


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int16", ">i2", "uint16", "int32", "float16", "float64", ">f8"]
)
def test_every_stored_type_agrees_with_itk(dtype):
    voxels = np.random.default_rng(1).integers(0, 120, SHAPE).astype(dtype)
    grid = grid_of((2, 0, 1))
    native = voxels.astype(np.float64)
    np.testing.assert_allclose(
        interpolate_straight(voxels, grid, 0.0), by_itk(native, grid, 0.0), rtol=1e-6, atol=1e-5
    )


def test_stored_arrays_of_either_memory_order_agree():
    voxels = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    grid = grid_of((1, 2, 0))
    np.testing.assert_array_equal(
        interpolate_straight(voxels, grid, 0.0), interpolate_straight(np.asfortranarray(voxels), grid, 0.0)
    )


def test_what_is_constant_stays_exactly_so():
    assert (
        interpolate_straight(np.full(SHAPE, 0.1, np.float32), grid_of((0, 1, 2)), 0.1) == np.float32(0.1)
    ).all()


def test_numbers_near_the_limit_of_float32_do_not_overflow():
    voxels = np.full(SHAPE, 3e38, np.float32)
    voxels[::2] = -3e38
    values = interpolate_straight(voxels, grid_of((0, 1, 2)), 0.0)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values, by_itk(voxels, grid_of((0, 1, 2)), 0.0), rtol=1e-4, atol=1e33)


def test_one_voxel_thick_axes_are_held():
    voxels = np.arange(4.0).reshape(1, 4, 1)
    grid = Grid((3, 4, 1), np.diag([0.4, 1, 1, 1]))
    np.testing.assert_array_equal(interpolate_straight(voxels, grid, -1.0)[:2, :, 0], [[0, 1, 2, 3]] * 2)
    assert (interpolate_straight(voxels, grid, -1.0)[2] == -1).all()


def test_a_rotated_or_sheared_grid_is_not_straight():
    turned = np.eye(4)
    turned[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    sheared = np.eye(4)
    sheared[0, 1] = 0.1
    assert is_straight(grid_of((2, 0, 1)))
    assert not is_straight(Grid((3, 3, 3), turned))
    assert not is_straight(Grid((3, 3, 3), sheared))
