"""A small scan of random voxels, for tests that need files and not what is in them."""

import nibabel as nib
import numpy as np

SHAPE = (11, 7, 5)


def write_scan(path, seed, dtype=np.int16):
    """Write voxels of `SHAPE` from 1 to 199 on a grid of 1, 2 and 3 mm; another seed gives others."""
    voxels = np.random.default_rng(seed).integers(1, 200, SHAPE).astype(dtype)
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 2.0, 3.0, 1.0])), path)
