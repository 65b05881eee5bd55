"""Separable resampling equals ITK's linear interpolation for every order of axes and every stored type."""

import itertools

import numpy as np

from voxlift.data_pipelines.geometry import Grid
from voxlift.data_pipelines.preprocess import resample as resample_module
from voxlift.data_pipelines.preprocess.resample import is_separable, resample_separable

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
    return resample_module._interpolate_itk(voxels, grid, resample_module._INTERPOLATORS["linear"], fill)


def test_every_order_and_direction_of_axes_agrees_with_itk():
    voxels = np.random.default_rng(0).normal(100, 50, SHAPE).astype(np.float32)
    for order, signs in itertools.product(ORDERS, itertools.product((1, -1), repeat=3)):
        grid, case = grid_of(order, signs), f"order {order}, signs {signs}"
        separable, itk = resample_separable(voxels, grid, -7.0), by_itk(voxels, grid, -7.0)
        assert (itk == -7).any(), case
        np.testing.assert_array_equal(separable == -7, itk == -7, case)
        np.testing.assert_allclose(separable, itk, rtol=1e-5, atol=1e-4, err_msg=case)
        assert separable.dtype == np.float32
        assert separable.flags.f_contiguous


def test_every_stored_type_agrees_with_itk():
    grid = grid_of((2, 0, 1))
    for dtype in ("bool", "uint8", "int16", ">i2", "uint16", "int32", "float16", "float64", ">f8"):
        voxels = np.random.default_rng(1).integers(0, 120, SHAPE).astype(dtype)
        itk = by_itk(voxels.astype(np.float64), grid, 0.0)
        separable = resample_separable(voxels, grid, 0.0)
        np.testing.assert_allclose(separable, itk, rtol=1e-6, atol=1e-5, err_msg=dtype)


def test_stored_arrays_of_either_memory_order_agree():
    voxels = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    grid = grid_of((1, 2, 0))
    np.testing.assert_array_equal(
        resample_separable(voxels, grid, 0.0), resample_separable(np.asfortranarray(voxels), grid, 0.0)
    )


def test_a_constant_image_stays_exactly_constant():
    assert (
        resample_separable(np.full(SHAPE, 0.1, np.float32), grid_of((0, 1, 2)), 0.1) == np.float32(0.1)
    ).all()


def test_numbers_near_the_limit_of_float32_do_not_overflow():
    voxels = np.full(SHAPE, 3e38, np.float32)
    voxels[::2] = -3e38
    values = resample_separable(voxels, grid_of((0, 1, 2)), 0.0)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values, by_itk(voxels, grid_of((0, 1, 2)), 0.0), rtol=1e-4, atol=1e33)


def test_axes_of_one_voxel_are_extended_by_half_a_voxel():
    voxels = np.arange(4.0).reshape(1, 4, 1)
    grid = Grid((3, 4, 1), np.diag([0.4, 1, 1, 1]))
    np.testing.assert_array_equal(resample_separable(voxels, grid, -1.0)[:2, :, 0], [[0, 1, 2, 3]] * 2)
    assert (resample_separable(voxels, grid, -1.0)[2] == -1).all()


def test_a_rotated_or_sheared_grid_is_not_separable():
    rotated = np.eye(4)
    rotated[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    sheared = np.eye(4)
    sheared[0, 1] = 0.1
    assert is_separable(grid_of((2, 0, 1)))
    assert not is_separable(Grid((3, 3, 3), rotated))
    assert not is_separable(Grid((3, 3, 3), sheared))
