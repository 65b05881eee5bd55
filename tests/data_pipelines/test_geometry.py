"""Every grid operation keeps the world coordinates of every voxel."""

from itertools import permutations, product

import nibabel as nib
import numpy as np

from voxlift.data_pipelines.geometry import (
    axcodes_of,
    crop_grid,
    field_of_view,
    fit_grid,
    from_tensor_axes,
    grid_affine,
    is_same_grid,
    is_sheared,
    ras_geometry,
    reorient_grid,
    respace_grid,
    spacing_of,
    stored_grid,
    stretch_grid,
    to_tensor_axes,
)
from voxlift.data_pipelines.preprocess.settings import is_axcodes

CODES = [
    "".join(pair[side] for pair, side in zip(order, sides, strict=True))
    for order in permutations(("LR", "PA", "IS"))
    for sides in product((0, 1), repeat=3)
]
SHAPE = (5, 7, 11)


def affine_of(codes, spacing=(1.5, 2.0, 3.0), tilt=0.0):
    turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), SHAPE)
    scale = nib.affines.from_matvec(
        nib.eulerangles.euler2mat(tilt, -tilt, tilt / 2) @ np.diag(spacing), [-9, 8, 7]
    )
    return scale @ turn


def test_there_are_48_axis_codes():
    assert len(set(CODES)) == 48
    assert all(map(is_axcodes, CODES))
    assert not any(map(is_axcodes, ["", "RA", "RAL", "RASS", "XYZ", "RRS"]))


def test_every_axis_code_becomes_ras_without_moving_a_voxel():
    for codes in CODES:
        voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE)
        image = nib.Nifti1Image(voxels.astype(np.int16), np.diag([1.5, 2.0, 3.0, 1.0]))
        reoriented = image.as_reoriented(
            nib.orientations.ornt_transform(
                nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
            )
        )
        assert axcodes_of(reoriented.affine) == codes
        grid = reorient_grid(stored_grid(reoriented.shape), reoriented.affine)
        assert grid.shape == SHAPE
        np.testing.assert_allclose(grid_affine(grid, reoriented.affine), image.affine, atol=1e-9)


def test_any_target_axes_agree_with_nibabel():
    for codes in CODES:
        affine = affine_of("PIR", tilt=0.2)
        grid = reorient_grid(stored_grid(SHAPE), affine, codes)
        reoriented = nib.Nifti1Image(np.zeros(SHAPE, np.int8), affine).as_reoriented(
            nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
        )
        np.testing.assert_allclose(grid_affine(grid, affine), reoriented.affine, atol=1e-9)
        assert grid.shape == reoriented.shape


def test_depth_is_superior_height_is_anterior_width_is_right():
    voxels = np.zeros((3, 4, 5, 1))
    voxels[2, 0, 0], voxels[0, 3, 0], voxels[0, 0, 4] = 1, 2, 3
    tensor = to_tensor_axes(voxels)
    assert tensor.shape == (5, 4, 3, 1)
    assert (tensor[0, 0, 2], tensor[0, 3, 0], tensor[4, 0, 0]) == (1, 2, 3)
    np.testing.assert_array_equal(from_tensor_axes(tensor), voxels)


def test_spacing_is_ordered_depth_height_width():
    np.testing.assert_allclose(spacing_of(affine_of("RAS", tilt=0.3)), (3.0, 2.0, 1.5))


def centre_of(grid, affine):
    return (grid_affine(grid, affine) @ [*(np.array(grid.shape) - 1) / 2, 1])[:3]


def test_a_new_spacing_keeps_the_centre_and_the_field_of_view():
    for codes, tilt in product(CODES[::5], (0.0, 0.25)):
        affine = affine_of(codes, tilt=tilt)
        grid = reorient_grid(stored_grid(SHAPE), affine)
        spaced = respace_grid(grid, affine, (1.0, 2.5, 0.7))
        np.testing.assert_allclose(spacing_of(grid_affine(spaced, affine)), (1.0, 2.5, 0.7))
        np.testing.assert_allclose(centre_of(spaced, affine), centre_of(grid, affine), atol=1e-9)
        extent = np.array(spaced.shape[::-1]) * (1.0, 2.5, 0.7)
        before = np.array(grid.shape[::-1]) * spacing_of(grid_affine(grid, affine))
        assert (np.abs(extent - before) <= np.array((1.0, 2.5, 0.7)) / 2 + 1e-9).all()


def test_a_spacing_that_differs_by_float32_rounding_is_the_same_spacing():
    affine = affine_of("RAS", spacing=(1.4999999, 2.0, 3.0000001))
    grid = respace_grid(stored_grid(SHAPE), affine, (3.0, 2.0, 1.5))
    np.testing.assert_array_equal(grid.to_source, np.eye(4))


def test_crop_and_pad_shift_by_whole_voxels_about_the_centre():
    for shape in ((4, 8, 6), (12, 3, 5), (11, 7, 5)):
        grid = fit_grid(stored_grid(SHAPE), shape)
        assert grid.shape == shape[::-1]
        np.testing.assert_array_equal(grid.to_source, np.round(grid.to_source))
        middle = grid.to_source[:3, 3] + (np.array(grid.shape) - 1) / 2
        assert (np.abs(middle - (np.array(SHAPE) - 1) / 2) <= 0.5).all()


def test_stretching_covers_exactly_the_same_field():
    affine = affine_of("LPI", tilt=0.2)
    grid = stretch_grid(stored_grid(SHAPE), (4, 20, 9))
    rim = np.array([[-0.5, -0.5, -0.5, 1], [*(np.array(grid.shape) - 0.5), 1]])
    expected = np.array([[-0.5, -0.5, -0.5, 1], [*(np.array(SHAPE) - 0.5), 1]])
    np.testing.assert_allclose(rim @ grid_affine(grid, affine).T, expected @ affine.T, atol=1e-9)


def test_the_field_of_view_is_what_was_scanned():
    grid = fit_grid(crop_grid(stored_grid(SHAPE), (1, 2, 3), (5, 6, 9)), (10, 4, 8))
    places = np.stack(np.meshgrid(*map(range, grid.shape), indexing="ij"), -1) + grid.to_source[:3, 3]
    expected = ((places >= 0) & (places < SHAPE)).all(-1)
    seen = np.broadcast_to(field_of_view(grid, SHAPE), grid.shape)
    np.testing.assert_array_equal(seen, expected)
    assert seen.any()
    assert not seen.all()


def test_grids_are_the_same_within_a_tenth_of_a_voxel():
    affine, moved = affine_of("RAS"), affine_of("RAS")
    moved[0, 3] += 0.14
    assert is_same_grid(SHAPE, moved, SHAPE, affine)
    moved[0, 3] += 0.02
    assert not is_same_grid(SHAPE, moved, SHAPE, affine)
    assert not is_same_grid(SHAPE, affine, (5, 7, 12), affine)


def test_ras_geometry_is_that_of_the_reoriented_image():
    for codes in ("RAS", "LPI", "SAR", "PIR"):
        affine = np.diag([1.5, 2.5, 4.0, 1.0])
        turn = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
        )
        image = nib.Nifti1Image(np.zeros((5, 7, 11), np.uint8), affine).as_reoriented(turn)
        assert ras_geometry((*image.shape, 3), image.affine) == ((11, 7, 5), (4.0, 2.5, 1.5))


def test_shear_is_found_beyond_a_tolerance():
    affine = np.diag([1.5, 2.5, 4.0, 1.0])
    assert not is_sheared(affine, tolerance=1e-6)
    affine[0, 2] = 4e-3  # a cosine of a thousandth
    assert is_sheared(affine, tolerance=9e-4)
    assert not is_sheared(affine, tolerance=1.1e-3)
