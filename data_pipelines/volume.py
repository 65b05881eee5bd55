"""A volume: voxels together with the affine that maps them to the world."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.errors import DataError

Array = NDArray[Any]
Affine = NDArray[np.float64]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM and ITK count towards the patient's left and posterior, NIfTI towards right and anterior."""


class VolumeError(DataError):
    """An image that cannot be used: what was expected, what was found, where, and how to fix it."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D image and its affine.

    Attributes:
        voxels: `[i, j, k]` or `[i, j, k, channels]`, real values (scaling applied), native byte order.
        affine: 4x4 float64, voxel index (i, j, k) -> world millimetres, RAS+.
        source: The file or folder that the voxels came from.
    """

    voxels: Array
    affine: Affine
    source: Path


@dataclass(frozen=True, eq=False)
class Stored:
    """An image as its file stores it, before scaling: conversions are left to who needs them.

    Real values are `voxels * slope + inter`.

    Attributes:
        voxels: `[i, j, k]` or `[i, j, k, channels]` in the stored type, native byte order; maybe read-only.
        affine: 4x4 float64, voxel index -> world millimetres, RAS+, after the choice between sform and qform.
        source: The file or folder.
        kind: The format, found by content: nifti1, nifti2, mgh, nrrd, metaimage, dicom.
        slope: Scale of the stored numbers, never 0.
        inter: Offset of the stored numbers.
        header_shape: The shape in the header, before singleton axes were dropped.
        sform: The header's sform, 4x4 in mm; None where its code is 0 or the format has none.
        qform: The header's qform, 4x4 in mm; None where its code is 0 or the format has none.
        notes: Warnings of the reader for the audit (guessed orientation, unusual units).
    """

    voxels: Array
    affine: Affine
    source: Path
    kind: str
    slope: float = 1.0
    inter: float = 0.0
    header_shape: tuple[int, ...] = ()
    sform: Affine | None = None
    qform: Affine | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_scaled(self) -> bool:
        """Return whether the stored numbers differ from the real values."""
        return self.slope != 1.0 or self.inter != 0.0


def real_values(stored: Stored) -> Array:
    """Return the real values of a stored image.

    Args:
        stored: The image as read.

    Returns:
        The voxels themselves where no scaling applies; otherwise float32, or float64 where the stored type
        holds more than float32's 24 bits.
    """
    if not stored.is_scaled:
        return stored.voxels
    wide = stored.voxels.dtype.itemsize > 4 or stored.voxels.dtype.name in {"int32", "uint32"}
    # The product is formed in float64 and rounded once, as nibabel does it.
    with np.errstate(over="ignore", invalid="ignore"):
        values: Array = stored.voxels * np.float64(stored.slope) + np.float64(stored.inter)
        return values if wide else values.astype(np.float32)


def channels_of(stored: Stored) -> list[Array]:
    """Return the channels of an image, one `[i, j, k]` view each, in the stored type."""
    if stored.voxels.ndim == 3:
        return [stored.voxels]
    return [stored.voxels[..., channel] for channel in range(stored.voxels.shape[3])]


def to_volume(stored: Stored) -> Volume:
    """Return a stored image as a `Volume` of real values, see `real_values`."""
    return Volume(real_values(stored), stored.affine, stored.source)
