"""Small NIfTI scans, for tests that need files."""

import nibabel as nib
import numpy as np

SHAPE = (11, 7, 5)


def random_voxels(seed, dtype=np.int16, shape=SHAPE):
    """Return voxels from 1 to 199; another seed gives others."""
    return np.random.default_rng(seed).integers(1, 200, shape).astype(dtype)


def write_nifti(path, voxels, affine=None, change=None):
    """Write voxels with equal sform and qform (1, 2, 3 mm) after `change(image)`; return the path."""
    affine = np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, 1)
    if change:
        change(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def write_scan(path, seed, dtype=np.int16):
    """Write random voxels of `SHAPE` on a grid of 1, 2 and 3 mm."""
    return write_nifti(path, random_voxels(seed, dtype))
