"""Read the plane of each frame of a multi-frame DICOM file (enhanced CT and MR, secondary capture).

ITK reads the voxels in the order of the frames and assumes even spacing along it. The standard lets a file
store its frames in any order, leave positions out, or hold several at one position, so the position that
each frame states is read here and compared with that assumption.

Source:
    DICOM PS3.3, C.7.6.16 Multi-frame Functional Groups, https://dicom.nema.org/medical/dicom/current
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.volume import VolumeError

if TYPE_CHECKING:
    from pydicom import Dataset


_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"


@dataclass(frozen=True)
class ImagePlane:
    """The plane of one slice, in DICOM's LPS millimetres.

    Attributes:
        position: Of its first voxel.
        orientation: Direction along a row, then down the rows, three numbers each.
        spacing: mm between rows, then between columns.
        size: Voxels of the slice as its file stores it.
        scale: Slope and offset to real values.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    size: tuple[int, ...]
    scale: tuple[float, float] = (1.0, 0.0)


def read_frame_planes(path: Path) -> list[ImagePlane] | None:
    """Return the plane of each frame of a file, in stored order; None where no frame states one.

    Raises:
        VolumeError: The file is not DICOM, or only some of its frames state their plane.
    """
    import pydicom  # noqa: PLC0415 - its import takes 0.2 s, and few data sets need it
    from pydicom.errors import InvalidDicomError  # noqa: PLC0415

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        groups = [_FunctionalGroups(header, frame) for frame in header.get(_PER_FRAME, [])]
        planes = [_plane_of(group, header) for group in groups]
    except (InvalidDicomError, OSError, ValueError, TypeError, AttributeError) as error:
        raise VolumeError(f"{path}: the DICOM header is damaged ({error}). Copy it again.") from error
    known = [plane for plane in planes if plane is not None]
    if known and len(known) < len(planes):
        raise VolumeError(
            f"{path}: only {len(known)} of {len(planes)} DICOM frames state their position."
            " Export the volume as NIfTI."
        )
    return known or None


def sort_frames(planes: list[ImagePlane], path: Path) -> NDArray[np.int64]:
    """Return the indices of the frames, sorted along the slice normal.

    Raises:
        VolumeError: Several frames share a position, or they are scaled differently.
    """
    row, column = np.reshape(planes[0].orientation, (2, 3))
    along = np.array([one.position for one in planes]) @ np.cross(row, column)
    apart = np.diff(np.sort(along))
    if len(apart) and apart.min() < 1e-3 < apart.max():
        raise VolumeError(
            f"{path}: several DICOM frames share a position (phases, echoes or directions)."
            " Export one volume per file."
        )
    if len({one.scale for one in planes}) > 1:
        raise VolumeError(f"{path}: the DICOM frames are scaled differently. Export the volume as NIfTI.")
    order = np.argsort(along, kind="stable")
    # Frames that are in order already stay as they are, in either direction.
    return order[::-1] if (np.diff(along) < 0).all() else order


class _FunctionalGroups:
    """The functional groups of one frame: its own, else those shared by all frames."""

    def __init__(self, header: Dataset, own: Dataset) -> None:
        self._sources = [own, *header.get(_SHARED, [])]

    def find(self, group: str, keyword: str) -> tuple[float, ...] | None:
        """Return an attribute's numbers, None where neither holds it."""
        for item in self._items(group):
            if keyword in item:
                return tuple(float(value) for value in np.atleast_1d(item[keyword].value))
        return None

    def _items(self, group: str) -> Iterator[Dataset]:
        for source in self._sources:
            yield from source.get(group, [])


def _plane_of(groups: _FunctionalGroups, header: Dataset) -> ImagePlane | None:
    position = groups.find("PlanePositionSequence", "ImagePositionPatient")
    orientation = groups.find("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = groups.find("PixelMeasuresSequence", "PixelSpacing")
    if position is None or orientation is None or spacing is None:
        return None
    slope = groups.find("PixelValueTransformationSequence", "RescaleSlope") or (1.0,)
    offset = groups.find("PixelValueTransformationSequence", "RescaleIntercept") or (0.0,)
    size = (int(header.Columns), int(header.Rows), 1)
    return ImagePlane(position, orientation, spacing, size, (slope[0], offset[0]))
