"""Masks and centres: the same place of the world is cut out, whatever grid a mask is on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from voxlift.data_pipelines.preprocess.prepare import prepare_tensor, prepare_volume
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.tables.regions import Region, to_ras
from voxlift.data_pipelines.volume import VolumeError

SHAPE = (18, 22, 15)
SPACING = np.diag([2.0, 1.5, 3.0])
BALL, RADIUS = np.array([4.0, -3.0, 6.0]), 6.0  # mm


def _affine(degrees: float, *, spacing=SPACING, shape=SHAPE, middle=(1.0, 2.0, 3.0)):
    """Return the affine of a grid whose middle is at a point of the world, rotated about two axes."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xz", [degrees, degrees / 2], degrees=True).as_matrix() @ spacing
    affine[:3, 3] = np.array(middle) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _world(shape, affine):
    return apply_affine(affine, np.stack(np.indices(shape), axis=-1))


def _save(path: Path, voxels, affine) -> Path:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def _image(path: Path, affine, shape=SHAPE) -> Path:
    """Write an image whose voxels tell their place: x + 100 (mm)."""
    return _save(path, (_world(shape, affine)[..., 0] + 100).astype(np.float32), affine)


def _ball(path: Path, shape, affine, centre=BALL, radius=RADIUS) -> Path:
    inside = np.linalg.norm(_world(shape, affine) - centre, axis=-1) <= radius
    return _save(path, inside.astype(np.uint8), affine)


@pytest.mark.parametrize("degrees", [0.0, 25.0])
def test_masks_of_one_region_on_different_grids_select_the_same_box(tmp_path, degrees):
    affine = _affine(degrees)
    image = _image(tmp_path / "image.nii.gz", affine)
    settings = Preprocess(mask=("crop",), mask_margin_mm=4.0)
    grids = {
        "same": (SHAPE, affine),
        "fine": ((70, 60, 50), _affine(0.0, spacing=np.diag([0.8, 0.9, 1.0]), shape=(70, 60, 50))),
        "rotated": ((60, 50, 40), _affine(-40.0, spacing=np.diag([1.0, 1.0, 1.2]), shape=(60, 50, 40))),
        "flipped": (
            (60, 60, 60),
            np.diag([-1.0, -1.0, 1.0, 1.0])
            @ _affine(0.0, spacing=np.eye(3), shape=(60,) * 3, middle=(0, 0, 0)),
        ),
    }
    boxes = {}
    for name, (shape, grid) in grids.items():
        mask = _ball(tmp_path / f"{name}.nii.gz", shape, grid)
        prepared = prepare_volume(image, settings, Region(mask=mask))
        side = np.array(prepared.voxels.shape[:3]) - 1
        boxes[name] = np.array(
            [apply_affine(prepared.affine, [0, 0, 0]), apply_affine(prepared.affine, side)]
        )
        # Every prepared voxel of the image still says where it is, and the ball with its margin is covered.
        x = apply_affine(prepared.affine, np.stack(np.indices(prepared.voxels.shape[:3]), -1))[..., 0]
        np.testing.assert_allclose(prepared.voxels[..., 0], x + 100, atol=1e-3)
        to_box = np.linalg.inv(prepared.affine)
        spacing = np.linalg.norm(prepared.affine[:3, :3], axis=0)
        middle = apply_affine(to_box, BALL)
        reach = (RADIUS + 4.0) / spacing
        assert (middle - reach >= -0.5 - 1.0).all()
        assert (middle + reach <= side + 0.5 + 1.0).all()
    for name in ("fine", "rotated", "flipped"):
        # Balls drawn on other grids differ by the size of their voxels: the boxes by a voxel at most.
        assert np.abs(boxes[name] - boxes["same"]).max() <= 3.0 + 1e-6, name


def test_mask_on_the_image_grid_crops_to_exactly_its_voxels_and_the_margin(tmp_path):
    affine = _affine(25.0)
    inside = np.zeros(SHAPE, np.uint8)
    inside[5:9, 7:8, 3:10] = 3  # a label is inside too
    inside[16, 20, 13] = 1  # a stray voxel
    image, region = (
        _image(tmp_path / "image.nii.gz", affine),
        Region(mask=_save(tmp_path / "m.nii", inside, affine)),
    )
    crop = Preprocess(mask=("crop",), mask_margin_mm=0.0, axcodes=None)
    assert prepare_volume(image, crop, region).voxels.shape == (12, 14, 11, 1)
    largest = replace(crop, mask_components="largest")
    prepared = prepare_volume(image, largest, region)
    assert prepared.voxels.shape == (4, 1, 7, 1)
    stored = nib.load(image).get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(prepared.voxels[..., 0], stored[5:9, 7:8, 3:10])
    np.testing.assert_allclose(prepared.affine[:3, 3], apply_affine(affine, [5, 7, 3]), atol=1e-4)
    # 3.5 mm are 2, 3 and 2 voxels of 2, 1.5 and 3 mm: at least the margin is kept.
    assert prepare_volume(image, replace(largest, mask_margin_mm=3.5), region).voxels.shape == (8, 7, 11, 1)


def test_outside_of_the_crop_is_padding_unless_the_margin_is_open(tmp_path):
    affine = _affine(0.0)
    inside = np.zeros(SHAPE, np.uint8)
    inside[8:11, 9:12, 6:9] = 1
    image, region = (
        _image(tmp_path / "image.nii.gz", affine),
        Region(mask=_save(tmp_path / "m.nii", inside, affine)),
    )
    settings = Preprocess(shape=(7, 9, 11), pad=-1.0, mask=("crop",), mask_margin_mm=0.0)
    closed = prepare_tensor(image, settings, region)
    seen = closed[..., 0] != -1
    assert seen.sum() == 27
    assert seen[2:5, 3:6, 4:7].all()
    open_ = prepare_tensor(image, replace(settings, mask_margin_mm=None), region)
    assert (open_ != -1).all()
    np.testing.assert_array_equal(open_[seen], closed[seen])


def test_channel_follows_every_grid_by_nearest_neighbour_and_blank_keeps_only_the_inside(tmp_path):
    affine, other = _affine(15.0), _affine(-30.0, spacing=np.diag([1.2, 1.0, 1.4]), shape=(50, 48, 44))
    image = _image(tmp_path / "image.nii.gz", affine)
    region = Region(mask=_ball(tmp_path / "m.nii.gz", (50, 48, 44), other))
    settings = Preprocess(spacing=(2.5, 2.0, 1.5), shape=(14, 20, 24), pad=0.0, mask=("channel", "blank"))
    prepared = prepare_volume(image, settings, region)
    voxels, mask = prepared.voxels[..., 0], prepared.voxels[..., 1]
    # The oracle: the label of the mask's voxel that is nearest in world millimetres.
    index = apply_affine(np.linalg.inv(other) @ prepared.affine, np.stack(np.indices(mask.shape), -1))
    nearest = np.round(index).astype(int)
    is_in = ((nearest >= 0) & (nearest < (50, 48, 44))).all(axis=-1)
    stored = np.asarray(nib.load(region.mask).dataobj)
    expected = np.zeros(mask.shape)
    expected[is_in] = stored[tuple(nearest[is_in].T)]
    assert (mask != expected).mean() < 1e-3  # positions halfway between two voxels may round either way
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert ((voxels != 0) == (mask == 1)).all()
    plain = prepare_volume(image, replace(settings, mask=()))
    np.testing.assert_array_equal(voxels[mask == 1], plain.voxels[..., 0][mask == 1])
    scored = prepare_volume(image, replace(settings, zscore="whole", mask=("blank",)), region).voxels[..., 0]
    np.testing.assert_allclose([scored[mask == 1].mean(), scored[mask == 1].std()], [0, 1], atol=1e-3)


def test_a_point_crops_about_itself_in_ras_and_lps(tmp_path):
    affine = _affine(25.0)
    image = _image(tmp_path / "image.nii.gz", affine)
    point = (3.0, -1.0, 5.0)
    left_posterior = (-3.0, 1.0, 5.0)
    assert to_ras(left_posterior, "LPS") == to_ras(point, "RAS") == point
    settings = Preprocess(mask=("crop",), mask_margin_mm=7.0)
    prepared = prepare_volume(image, settings, Region(centre=point))
    side = np.array(prepared.voxels.shape[:3])
    index = apply_affine(np.linalg.inv(prepared.affine), point)
    spacing = np.linalg.norm(prepared.affine[:3, :3], axis=0)
    assert (index * spacing + spacing / 2 >= 7.0 - 1e-3).all()
    assert ((side - 1 - index) * spacing + spacing / 2 >= 7.0 - 1e-3).all()
    assert (np.abs(side * spacing - 14.0) <= 2 * spacing).all()
    upright = _image(tmp_path / "upright.nii.gz", _affine(0.0))  # y from -13.75 to 17.75
    with pytest.raises(VolumeError, match="LPS"):
        prepare_volume(upright, settings, Region(centre=(0.0, -16.0, 5.0)))
    with pytest.raises(VolumeError, match="outside the image"):
        prepare_volume(image, settings, Region(centre=(900.0, 0.0, 0.0)))


def test_masks_that_select_nothing_are_refused_with_their_file(tmp_path):
    affine = _affine(0.0)
    image = _image(tmp_path / "image.nii.gz", affine)
    away = affine.copy()
    away[:3, 3] += 500
    one_voxel = np.zeros(SHAPE, np.uint8)
    one_voxel[4, 5, 6] = 1
    nan = np.full(SHAPE, np.nan, np.float32)
    cases = {
        "empty.nii": (np.zeros(SHAPE, np.uint8), affine, Preprocess(mask=("crop",))),
        "nan.nii": (nan, affine, Preprocess(mask=("crop",))),
        "away.nii": (np.ones(SHAPE, np.uint8), away, Preprocess(mask=("crop",))),
        "thin.nii": (one_voxel, affine, Preprocess(mask=("channel",), spacing=(30.0, 30.0, 30.0))),
    }
    for name, (voxels, grid, settings) in cases.items():
        mask = _save(tmp_path / name, voxels, grid)
        with pytest.raises(VolumeError, match=name):
            prepare_volume(image, settings, Region(mask=mask))
    with pytest.raises(VolumeError, match="needs a mask"):
        prepare_volume(image, Preprocess(mask=("crop",)))
