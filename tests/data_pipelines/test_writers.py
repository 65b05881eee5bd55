"""A written volume reads back at the same position, and a map overlays the source image."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from voxlift.data_pipelines.geometry import to_tensor_axes
from voxlift.data_pipelines.preprocess.prepare import Preprocess, prepare_volume
from voxlift.data_pipelines.readers import load_volume
from voxlift.data_pipelines.readers.itk import affine_of_image
from voxlift.data_pipelines.volume import Volume, VolumeError
from voxlift.data_pipelines.writers import resample_to_source, save_on_source_grid, save_volume

SHAPE = (9, 11, 13)


def affine_of(tilt, shear=0.0):
    rotation = nib.eulerangles.euler2mat(tilt, -tilt, tilt / 2)
    affine = nib.affines.from_matvec(rotation @ np.diag([-1.5, 2.0, 2.5]), [-9, 8, 7])
    affine[:3, 2] += shear * affine[:3, 1]
    return affine


def write_source(path, affine):
    voxels = np.random.default_rng(0).integers(0, 100, SHAPE).astype(np.int16)
    return save_volume(Volume(voxels, affine, path), path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_a_written_volume_reads_back_in_every_viewers_coordinates(tmp_path, ending, dtype):
    voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)
    path = save_volume(Volume(voxels, affine_of(0.3), tmp_path), tmp_path / f"new/a{ending}")
    back = load_volume(path)
    np.testing.assert_array_equal(back.voxels, voxels)
    np.testing.assert_allclose(back.affine, affine_of(0.3), atol=1e-5)
    np.testing.assert_allclose(load_volume(path, prefer="qform").affine, affine_of(0.3), atol=1e-5)
    np.testing.assert_allclose(affine_of_image(SimpleITK.ReadImage(str(path))), affine_of(0.3), atol=1e-5)


def test_bool_and_half_floats_are_widened(tmp_path):
    for dtype, stored in ((bool, np.uint8), (np.float16, np.float32)):
        path = save_volume(Volume(np.ones(SHAPE, dtype), np.eye(4), tmp_path), tmp_path / "a.nii")
        assert load_volume(path).voxels.dtype == stored


def test_a_sheared_affine_is_written_without_a_false_qform(tmp_path):
    path = save_volume(Volume(np.ones(SHAPE, np.int16), affine_of(0.2, 0.4), tmp_path), tmp_path / "a.nii")
    assert nib.load(path).header["qform_code"] == 0
    np.testing.assert_allclose(load_volume(path).affine, affine_of(0.2, 0.4), atol=1e-5)


@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_an_array_of_the_prepared_grid_overlays_its_source(tmp_path, tilt):
    source = write_source(tmp_path / "a.nii.gz", affine_of(tilt))
    prepared = prepare_volume(source, Preprocess(spacing=(2.0, 1.8, 1.6), shape=(20, 16, 14)))
    # A map that is its own world coordinate must read that coordinate on the source's grid.
    index = np.stack(np.meshgrid(*map(np.arange, prepared.voxels.shape[:3]), indexing="ij"), -1)
    world = nib.affines.apply_affine(prepared.affine, index) @ [1.0, -2.0, 3.0]
    path = save_on_source_grid(to_tensor_axes(world), prepared.affine, source, tmp_path / "map.nii.gz")
    image = nib.load(path)
    assert image.shape == SHAPE
    np.testing.assert_allclose(image.affine, nib.load(source).affine, atol=1e-5)
    places = nib.affines.apply_affine(
        image.affine, np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    )
    np.testing.assert_allclose(image.get_fdata(), places @ [1.0, -2.0, 3.0], atol=1e-3)


def test_an_unchanged_grid_reads_back_voxel_for_voxel(tmp_path):
    source = write_source(tmp_path / "a.nii.gz", affine_of(0.1))
    prepared = prepare_volume(source, Preprocess())
    back = resample_to_source(to_tensor_axes(prepared.voxels)[..., 0], prepared.affine, source)
    np.testing.assert_array_equal(back.voxels, load_volume(source).voxels)


def test_voxels_outside_the_prepared_grid_are_zero(tmp_path):
    source = write_source(tmp_path / "a.nii.gz", affine_of(0.0))
    prepared = prepare_volume(source, Preprocess(shape=(3, 3, 3)))
    back = resample_to_source(np.ones((3, 3, 3), bool), prepared.affine, source, interpolation="nearest")
    assert back.voxels.sum() == 27


def test_wrong_names_and_types_are_refused(tmp_path):
    with pytest.raises(VolumeError, match=r"a\.mha.*\.nii\.gz"):
        save_volume(Volume(np.ones(SHAPE), np.eye(4), tmp_path), tmp_path / "a.mha")
    with pytest.raises(VolumeError, match="complex64"):
        save_volume(Volume(np.ones(SHAPE, np.complex64), np.eye(4), tmp_path), tmp_path / "a.nii")
