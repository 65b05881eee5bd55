"""Resampling copies exactly where it can, and agrees with nibabel and SimpleITK elsewhere, also separably."""

import itertools
from itertools import product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from nibabel.processing import resample_from_to

from voxlift.data_pipelines.geometry import Grid, crop_grid, fit_grid, reorient_grid, stored_grid
from voxlift.data_pipelines.preprocess import resample as resample_module
from voxlift.data_pipelines.preprocess.resample import (
    antialias_sigmas,
    is_separable,
    resample,
    resample_separable,
)

SHAPE = (9, 11, 13)


def noise(dtype="float32"):
    return (np.random.default_rng(0).normal(size=SHAPE) * 50 + 100).astype(dtype)


def affine_of(tilt=0.0, shear=0.0, spacing=(1.5, 2.0, 2.5)):
    affine = nib.affines.from_matvec(
        nib.eulerangles.euler2mat(tilt, -tilt, tilt / 2) @ np.diag(spacing), [4, -5, 6]
    )
    affine[:3, 2] += shear * affine[:3, 1]
    return affine


TARGET = affine_of(tilt=-0.1, spacing=(1.1, 1.9, 3.1))


def test_oblique_and_sheared_grids_agree_with_nibabel():
    for tilt, shear, interpolation in product((0.0, 0.3), (0.0, 0.4), ("linear", "nearest")):
        affine = affine_of(tilt, shear)
        grid = Grid((8, 10, 9), np.linalg.inv(affine) @ TARGET)
        ours = resample(noise(), grid, interpolation=interpolation, fill=np.nan)
        order = {"linear": 1, "nearest": 0}[interpolation]
        reference = resample_from_to(
            nib.Nifti1Image(noise(), affine), ((8, 10, 9), TARGET), order=order, cval=np.nan
        ).get_fdata()
        # SciPy ends the field at the outer voxel centres, we end it half a voxel further out.
        known = np.isfinite(reference)
        assert known.sum() > 100
        np.testing.assert_allclose(ours[known], reference[known], rtol=1e-4)


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_grids_without_shear_agree_with_simpleitk_in_its_own_world(tilt, interpolation):
    def image_of(voxels, affine):
        image = SimpleITK.GetImageFromArray(voxels.T)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(affine[:3, 3].tolist())
        return image

    affine = affine_of(tilt)
    reference = SimpleITK.Resample(
        image_of(noise(), affine),
        image_of(np.zeros((8, 10, 9), np.float32), TARGET),
        SimpleITK.Transform(),
        {"linear": SimpleITK.sitkLinear, "nearest": SimpleITK.sitkNearestNeighbor}[interpolation],
        -7.0,
    )
    ours = resample(
        noise(), Grid((8, 10, 9), np.linalg.inv(affine) @ TARGET), interpolation=interpolation, fill=-7
    )
    theirs = SimpleITK.GetArrayFromImage(reference).T
    assert (np.abs(ours - theirs) > 1e-3).mean() < 0.002  # ties of nearest and the rim itself


def test_flips_permutations_crops_and_pads_copy_every_voxel():
    for dtype in ("uint8", "int16", "int32", "int64", "uint64", "float32", "float64", "float16", "bool"):
        voxels = noise().astype(dtype)
        affine = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt("PIR"), SHAPE)
        grid = reorient_grid(stored_grid(SHAPE), affine)
        whole = resample(voxels, grid)
        image = nib.as_closest_canonical(nib.Nifti1Image(noise(), affine))
        np.testing.assert_array_equal(whole, np.asarray(image.dataobj).astype(dtype).astype(np.float32))
        cut = crop_grid(grid, (1, 2, 3), tuple(np.subtract(grid.shape, 2)))
        np.testing.assert_array_equal(resample(voxels, cut), whole[1:-2, 2:-2, 3:-2])
        padded = resample(voxels, fit_grid(cut, tuple(np.array(cut.shape[::-1]) + 2)), fill=-1)
        np.testing.assert_array_equal(padded[1:-1, 1:-1, 1:-1], whole[1:-2, 2:-2, 3:-2])


def test_a_padded_voxel_shows_the_neighbour_that_was_scanned_or_the_fill():
    voxels = np.arange(27, dtype=np.int16).reshape(3, 3, 3)
    step = np.eye(4)
    step[:3, 3] = (-1, 0, 0)
    out = resample(voxels, Grid((5, 3, 3), step), fill=-9)
    np.testing.assert_array_equal(out[1:4], voxels)
    assert (out[[0, 4]] == -9).all()


def test_a_grid_beside_the_image_is_all_fill():
    step = np.eye(4)
    step[:3, 3] = 100
    assert (resample(noise(), Grid((4, 4, 4), step), fill=3) == 3).all()


def test_a_linear_ramp_stays_the_same_ramp():
    for shift in (0.25, 1 / 3):
        ramp = np.fromfunction(lambda i, j, k: 3 * i - 2 * j + k, SHAPE)
        step = np.diag([0.7, 1.3, 0.9, 1.0])
        step[:3, 3] = shift
        out = resample(ramp, Grid((6, 6, 6), step))
        positions = np.stack(np.meshgrid(*[range(6)] * 3, indexing="ij"), -1) * [0.7, 1.3, 0.9] + shift
        np.testing.assert_allclose(out, positions @ [3, -2, 1], atol=1e-4)


def test_antialiasing_removes_a_pattern_too_fine_for_the_new_grid():
    stripes = np.broadcast_to(np.where(np.arange(64) % 2, 1.0, -1.0)[:, None, None], (64, 5, 5)).astype(
        np.float32
    )
    step = np.diag([3.9, 1.0, 1.0, 1.0])
    grid = Grid((16, 5, 5), step)
    assert np.abs(resample(stripes, grid)).max() > 0.5
    assert np.abs(resample(stripes, grid, antialias=True)[2:-2]).max() < 0.05
    np.testing.assert_allclose(antialias_sigmas(grid), (np.sqrt((3.9**2 - 1) / (8 * np.log(2))), 0, 0))


def test_the_result_is_contiguous_as_a_tensor():
    for grid in (Grid((4, 5, 6), np.diag([1.5, 1.5, 1.5, 1.0])), fit_grid(stored_grid(SHAPE), (6, 5, 4))):
        assert resample(noise(), grid).T.flags.c_contiguous


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
