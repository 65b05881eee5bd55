"""Read the plane of each frame of a multi-frame DICOM file (enhanced CT and MR, secondary capture).

ITK reads the voxels in the order of the frames and assumes even spacing along it. The standard lets a file
store its frames in any order, leave positions out, or hold several at one position, so the position that
each frame states is read here and compared with that assumption.

Source:
    DICOM PS3.3, C.7.6.16 Multi-frame Functional Groups, https://dicom.nema.org/medical/dicom/current
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.volume import VolumeError

if TYPE_CHECKING:
    from pydicom import Dataset


# GDCM (of SimpleITK 2.5) scales the frames of these classes by their functional groups, those of all other
# classes only by the attributes of the whole file.
_SCALED_BY_GDCM = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{number}"
    for number in (
        "2.1",  # enhanced CT
        "2.2",
        "4.1",  # enhanced MR
        "4.4",
        "13.1.1",  # X-ray 3D, breast tomosynthesis
        "13.1.2",
        "13.1.3",
        "13.1.4",
        "13.1.5",
        "66.4",  # segmentation
        "128.1",
        "130",  # enhanced PET
    )
)
VALUE_TAGS = ("ModalityLUTSequence", "PhotometricInterpretation")
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


@dataclass(frozen=True)
class Frames:
    """What a multi-frame file states about its frames, in stored order.

    Attributes:
        planes: Of each frame; empty where no frame states its plane.
        scales: Slope and offset of each frame that GDCM did not apply; empty where it applied them.
        notes: Warnings for the audit.
    """

    planes: tuple[ImagePlane, ...]
    scales: tuple[tuple[float, float], ...]
    notes: tuple[str, ...]


def read_frames(path: Path) -> Frames:
    """Return what a file states about its frames.

    Raises:
        VolumeError: The file is not DICOM, or only some of its frames state their plane.
    """
    header = read_dicom_header(path)
    try:
        groups = [_FunctionalGroups(header, frame) for frame in header.get(_PER_FRAME, [])]
        planes = [_plane_of(group, header) for group in groups]
        scales = _missed_scales(groups, header)
        notes = find_value_notes(header)
    except Exception as error:  # a damaged header may raise anything on the way
        raise VolumeError(f"{path}: the DICOM header is damaged ({error}). Copy it again.") from error
    known = tuple(plane for plane in planes if plane is not None)
    if known and len(known) < len(planes):
        raise VolumeError(
            f"{path}: only {len(known)} of {len(planes)} DICOM frames state their position."
            " Export the volume as NIfTI."
        )
    return Frames(known, scales, notes)


def read_dicom_header(path: Path, *, only: Sequence[str] = ()) -> Dataset:
    """Return the data set of a DICOM file without its voxels; the file may lack its preamble.

    Args:
        path: The file.
        only: Keywords of the attributes that are read; all without any.

    Raises:
        VolumeError: The file is not DICOM.
    """
    import pydicom  # noqa: PLC0415 - its import takes 0.2 s, and few data sets need it

    try:
        return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(only) or None)
    except Exception as error:  # pydicom raises whatever a damaged header leads to
        raise VolumeError(f"{path}: the DICOM header is damaged ({error}). Copy it again.") from error


def find_class(path: Path) -> str:
    """Return the SOP class UID of a DICOM file, which says what it holds; empty where it cannot be read."""
    try:
        header = read_dicom_header(path, only=("SOPClassUID",))
        meta = getattr(header, "file_meta", {})
        return str(header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
    except Exception:  # noqa: BLE001 - a damaged header may raise anything
        return ""


def find_missed_scaling(path: Path) -> str:
    """Return the scaling of frames that GDCM does not apply, as text; empty where there is none.

    Raises:
        VolumeError: The file is damaged.
    """
    scales = set(read_frames(path).scales)
    return " ".join(map(str, sorted(scales)))


def find_value_notes(header: Dataset) -> tuple[str, ...]:
    """Return notes on values that a viewer would show otherwise, from the attributes `VALUE_TAGS`."""
    notes = []
    if header.get("ModalityLUTSequence"):
        notes.append("the DICOM file has a Modality LUT, which is not applied: values are as stored")
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        notes.append("the DICOM file is MONOCHROME1 (low values are bright): values are kept as stored")
    return tuple(notes)


def _missed_scales(groups: Sequence[_FunctionalGroups], header: Dataset) -> tuple[tuple[float, float], ...]:
    """Return the scale of each frame where GDCM ignores it: in other classes than those it knows."""
    if str(header.get("SOPClassUID", "")) in _SCALED_BY_GDCM or "RescaleSlope" in header:
        return ()
    scales = tuple(_scale_of(group) for group in groups)
    return () if set(scales) <= {(1.0, 0.0)} else scales


def sort_frames(planes: Sequence[ImagePlane], path: Path) -> NDArray[np.int64]:
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
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2):
        raise ValueError("position, orientation or pixel spacing of a frame is incomplete")
    if not np.isfinite([*position, *orientation, *spacing]).all():
        raise ValueError("position, orientation or pixel spacing of a frame is no number")
    size = (int(header.Columns), int(header.Rows), 1)
    return ImagePlane(position, orientation, spacing, size, _scale_of(groups))


def _scale_of(groups: _FunctionalGroups) -> tuple[float, float]:
    slope = groups.find("PixelValueTransformationSequence", "RescaleSlope") or (1.0,)
    offset = groups.find("PixelValueTransformationSequence", "RescaleIntercept") or (0.0,)
    return slope[0], offset[0]
