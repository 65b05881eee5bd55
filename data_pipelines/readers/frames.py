"""One DICOM file of many frames (enhanced CT and MR, multi-frame secondary capture): where each frame lies.

ITK reads the voxels in the order of the frames and takes them to be evenly spaced along it. The standard
lets a file store its frames in any order, leave places out, or hold several at one place, so the positions
that each frame states are read here and held against that.

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
class Place:
    """Where one slice lies, in DICOM's LPS millimetres.

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


def frame_places(path: Path) -> list[Place] | None:
    """Return where each frame of a file lies, in stored order; None where its frames do not say.

    Raises:
        VolumeError: The file is no DICOM, or says it for some frames only.
    """
    import pydicom  # noqa: PLC0415 - takes a fifth of a second, which few data sets need
    from pydicom.errors import InvalidDicomError  # noqa: PLC0415

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        groups = [_Groups(header, frame) for frame in header.get(_PER_FRAME, [])]
        places = [_place(group, header) for group in groups]
    except (InvalidDicomError, OSError, ValueError, TypeError, AttributeError) as error:
        raise VolumeError(f"{path}: the DICOM header is damaged ({error}). Copy it again.") from error
    known = [place for place in places if place is not None]
    if known and len(known) < len(places):
        raise VolumeError(f"{path}: only {len(known)} of {len(places)} DICOM frames say where they lie.")
    return known or None


def sort_frames(places: list[Place], path: Path) -> NDArray[np.int64]:
    """Return the order in which the frames follow one another along the slices' normal.

    Raises:
        VolumeError: Several frames lie at one place, or they are scaled differently.
    """
    row, column = np.reshape(places[0].orientation, (2, 3))
    along = np.array([one.position for one in places]) @ np.cross(row, column)
    apart = np.diff(np.sort(along))
    if len(apart) and apart.min() < 1e-3 < apart.max():
        raise VolumeError(
            f"{path}: several DICOM frames lie at the same place (phases, echoes or directions)."
            " Export one volume per file."
        )
    if len({one.scale for one in places}) > 1:
        raise VolumeError(f"{path}: the DICOM frames are scaled differently. Export the volume as NIfTI.")
    order = np.argsort(along, kind="stable")
    # Frames that are in order already keep it, whichever way they run.
    return order[::-1] if (np.diff(along) < 0).all() else order


class _Groups:
    """The functional groups of one frame: its own, else those that all share."""

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


def _place(groups: _Groups, header: Dataset) -> Place | None:
    position = groups.find("PlanePositionSequence", "ImagePositionPatient")
    orientation = groups.find("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = groups.find("PixelMeasuresSequence", "PixelSpacing")
    if position is None or orientation is None or spacing is None:
        return None
    slope = groups.find("PixelValueTransformationSequence", "RescaleSlope") or (1.0,)
    offset = groups.find("PixelValueTransformationSequence", "RescaleIntercept") or (0.0,)
    size = (int(header.Columns), int(header.Rows), 1)
    return Place(position, orientation, spacing, size, (slope[0], offset[0]))
