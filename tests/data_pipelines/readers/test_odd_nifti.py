"""NIfTI headers that break the standard slightly are read as ITK and nibabel read them, with a note."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from voxlift.data_pipelines.readers import load_volume, read_stored
from voxlift.data_pipelines.readers.itk import affine_of_image
from voxlift.data_pipelines.volume import VolumeError

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
ROTATED = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.3, -0.2, 0.1) @ np.diag([1.5, 2, 3]), [1, 2, 3])
QFAC, QUATERNION, MAGIC = 76, 256, 344  # bytes in the header


def write_with_qform(path, affine=ROTATED):
    image = nib.Nifti1Image(VOXELS, affine)
    image.set_sform(None, 0)
    image.set_qform(affine, 1)
    nib.save(image, path)
    return path


def patch(path, at, content):
    raw = bytearray(path.read_bytes())
    raw[at : at + len(content)] = content
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("qfac", [0.0, 2.0, -3.0, 1e-30])
def test_the_sign_of_pixdim_0_is_taken_as_itk_takes_it(tmp_path, qfac):
    path = patch(write_with_qform(tmp_path / "a.nii"), QFAC, struct.pack("<f", qfac))
    stored = read_stored(path)
    np.testing.assert_allclose(stored.affine, affine_of_image(SimpleITK.ReadImage(str(path))), atol=1e-5)
    assert len(stored.notes) == 1


def test_a_plain_pixdim_0_needs_no_note(tmp_path):
    mirrored = ROTATED @ np.diag([1, 1, -1, 1])
    for affine in (ROTATED, mirrored):
        stored = read_stored(write_with_qform(tmp_path / "a.nii", affine))
        np.testing.assert_allclose(stored.affine, affine, atol=1e-5)
        assert not stored.notes


@pytest.mark.parametrize("length", [1 + 2e-7, 1 + 2e-6, 1.001, 1.5])
@pytest.mark.parametrize("direction", [(0, 0, 1), (0.6, 0, 0.8), (-0.6, 0.48, 0.64)])
def test_a_quaternion_that_is_too_long_is_taken_as_itk_takes_it(tmp_path, length, direction):
    long = struct.pack("<3f", *np.multiply(direction, length))
    path = patch(write_with_qform(tmp_path / "a.nii"), QUATERNION, long)
    stored = read_stored(path)
    itk = SimpleITK.ReadImage(str(path))
    np.testing.assert_allclose(stored.affine, affine_of_image(itk), atol=1e-3)
    assert len(stored.notes) == (length > 1 + 1e-5)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".hdr", ".dat"])
def test_a_single_file_marked_as_a_pair_is_read(tmp_path, ending):
    plain = write_with_qform(tmp_path / "b.nii")
    raw = patch(plain, MAGIC, b"ni1\0").read_bytes()
    path = tmp_path / f"a{ending}"
    path.write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    stored = read_stored(path)
    np.testing.assert_array_equal(stored.voxels, VOXELS)
    assert len(stored.notes) == 1


@pytest.mark.parametrize("version", [nib.Nifti1Pair, nib.Nifti2Pair])
def test_a_pair_marked_as_a_single_file_is_read(tmp_path, version):
    nib.save(version(VOXELS, ROTATED), tmp_path / "a.hdr")
    at, single = (MAGIC, b"n+1\0") if version is nib.Nifti1Pair else (4, b"n+2\0")
    stored = read_stored(patch(tmp_path / "a.hdr", at, single))
    np.testing.assert_array_equal(stored.voxels, VOXELS)
    assert len(stored.notes) == 1


def test_a_pair_stays_a_pair_beside_a_single_file(tmp_path):
    nib.save(nib.Nifti1Pair(VOXELS, ROTATED), tmp_path / "a.hdr")
    nib.save(nib.Nifti1Image(VOXELS + 1, ROTATED), tmp_path / "a.nii")
    np.testing.assert_array_equal(load_volume(tmp_path / "a.hdr").voxels, VOXELS)
    np.testing.assert_array_equal(load_volume(tmp_path / "a.img").voxels, VOXELS)


@pytest.mark.parametrize("kept", [10, 100, 347, 352, 400])
def test_a_file_cut_off_anywhere_is_called_cut_off(tmp_path, kept):
    whole = write_with_qform(tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(whole[:kept])
    with pytest.raises(VolumeError, match=r"a\.nii: .*cut off"):
        load_volume(tmp_path / "a.nii")
    packed = gzip.compress(whole, mtime=0)
    for part in (12, len(packed) // 3):
        (tmp_path / "a.nii.gz").write_bytes(packed[:part])
        with pytest.raises(VolumeError, match=r"a\.nii\.gz: .*cut off"):
            load_volume(tmp_path / "a.nii.gz")
