"""Write volumes of noise, half of them with a bright cube of two voxels a side: `small_cubes.py FOLDER`.

A structure this small tells how much the interpolation of an augmentation blurs; see README.md.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

SUBJECTS, SHAPE, SPACING_MM = 192, (24, 22, 20), 2.0


def main() -> None:
    """Write the volumes and `labels.csv`."""
    folder, rng = Path(sys.argv[1]), np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [("subject", "image", "label")]
    for number in range(SUBJECTS):
        voxels, label = rng.normal(0, 0.3, SHAPE).astype(np.float32), number % 2
        if label:
            corner = [rng.integers(4, side - 6) for side in SHAPE]
            voxels[tuple(slice(start, start + 2) for start in corner)] += 1.2
        name = f"s{number:03}"
        affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
        nib.save(nib.Nifti1Image(voxels, affine), folder / f"{name}.nii.gz")
        rows.append((name, f"{name}.nii.gz", ("empty", "blob")[label]))
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
