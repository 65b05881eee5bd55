"""The facts of a file are in RAS, its hash is of its voxels, and its thumbnails show what is in it."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from scans import random_voxels, write_nifti, write_scan
from voxlift.data_pipelines.audit import read_facts


def hash_of(path):
    return read_facts(path).voxel_hash


def test_the_hash_is_of_the_voxels_not_of_the_file(tmp_path):
    path = write_scan(tmp_path / "a.nii.gz", 0)
    first, image = hash_of(path), nib.load(path)
    nib.save(image.as_reoriented(nib.orientations.axcodes2ornt("PIL")), tmp_path / "turned.nii")
    scaled = nib.Nifti1Image(random_voxels(0) * np.int16(2), image.affine)
    scaled.header.set_slope_inter(0.5, 0)
    nib.save(scaled, tmp_path / "scaled.nii")
    write_scan(tmp_path / "float.nii", 0, np.float64)
    write_nifti(tmp_path / "moved.nii", random_voxels(0), np.diag([3.0, 3.0, 3.0, 1.0]))
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(tmp_path / "a.nrrd"))
    for name in ("turned.nii", "scaled.nii", "float.nii", "moved.nii", "a.nrrd"):
        assert hash_of(tmp_path / name) == first, name
    changed = random_voxels(0)
    changed[1, 2, 3] += 1
    assert hash_of(write_nifti(tmp_path / "b.nii", changed)) != first
    assert hash_of(write_nifti(tmp_path / "flip.nii", random_voxels(0)[::-1])) != first


def test_facts_are_in_ras_and_thumbnails_show_the_head_up(tmp_path):
    voxels = np.zeros((10, 12, 30), np.int16)
    voxels[:, :, 20:] = 100
    turned = nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 1.0, 1.0])).as_reoriented(
        nib.orientations.axcodes2ornt("SPL")
    )
    nib.save(turned, tmp_path / "a.nii.gz")
    facts = read_facts(tmp_path / "a.nii.gz", thumbnails=True)
    assert (facts.shape, facts.spacing) == ((30, 12, 10), (1.0, 2.0, 2.0))
    assert (facts.minimum, facts.maximum, facts.nonfinite, facts.channels) == (0, 100, 0, 1)
    axial, coronal, sagittal = facts.thumbnails
    assert all(picture.dtype == np.uint8 and max(picture.shape) == 96 for picture in facts.thumbnails)
    assert coronal.shape == (96, 64)
    assert sagittal.shape == (96, 77)
    assert (coronal[:30] == 255).all()
    assert (coronal[-60:] == 0).all()
    assert axial.max() == axial.min()


def test_the_thumbnail_of_a_sparse_mask_shows_where_it_is(tmp_path):
    mask = np.zeros((20, 24, 28), np.uint8)
    mask[2:5, 18:20, 3:6] = 1
    mask[10, 12, 14] = 1  # a stray voxel in the middle is not worth showing
    facts = read_facts(write_nifti(tmp_path / "mask.nii.gz", mask, np.eye(4)), thumbnails=True)
    shown = [int((picture > 0).sum()) / picture.size for picture in facts.thumbnails]
    np.testing.assert_allclose(shown, [6 / 480, 9 / 560, 6 / 672], rtol=0.5)
    assert all(picture.any() for picture in facts.thumbnails)
    empty = read_facts(write_nifti(tmp_path / "empty.nii.gz", mask * 0, np.eye(4)), thumbnails=True)
    assert not any(picture.any() for picture in empty.thumbnails)


def test_tilt_and_shear_are_measured(tmp_path):
    tilted = nib.affines.from_matvec(nib.eulerangles.euler2mat(np.radians(10)) * 2, [0, 0, 0])
    sheared = tilted.copy()
    sheared[:3, 2] += 0.2 * sheared[:3, 1]
    facts = read_facts(write_nifti(tmp_path / "a.nii", random_voxels(0), tilted))
    assert facts.tilt_degrees == pytest.approx(10, abs=1e-3)
    assert not facts.is_sheared
    assert read_facts(write_nifti(tmp_path / "b.nii", random_voxels(0), sheared)).is_sheared
