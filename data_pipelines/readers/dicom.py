"""A folder that holds one DICOM series."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from data_pipelines.readers.checks import check_affine, native
from data_pipelines.readers.inflate import MAX_BYTES
from data_pipelines.readers.itk import LPS_TO_RAS, array_of_image, itk_reason
from data_pipelines.volume import Affine, Stored, VolumeError

POSITION, ORIENTATION, PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
UNEVEN_PART = 0.1
"""A slice may lie off its even place by a tenth of the step; beyond it one is missing or doubled."""


@dataclass(frozen=True)
class _Slice:
    """Where one file of the series lies, in DICOM's LPS millimetres."""

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    size: tuple[int, ...]


def read_dicom_series(folder: Path) -> Stored:
    """Return the one DICOM series of a folder as a volume, rescaled to its real values (HU for CT).

    Args:
        folder: Holds the files of one series; other files are passed over.

    Raises:
        VolumeError: No series, several, missing or doubled slices, or slices that do not fit together.
    """
    files = _series_files(folder)
    slices = [_slice_of(Path(file)) for file in files]
    affine = _series_affine(slices, folder)
    if np.prod(slices[0].size[:2], dtype=float) * len(files) * 4 > MAX_BYTES:
        raise VolumeError(f"{folder}: the series needs more than {MAX_BYTES / 2**30:.0f} GiB once decoded.")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(files)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise VolumeError(f"{folder}: the DICOM series is not readable ({itk_reason(error)}).") from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise VolumeError(
            f"{folder}: expected one number per voxel, received colour. Convert it to grey values."
        )
    voxels = native(array_of_image(image))
    return Stored(voxels, affine, folder, "dicom", header_shape=tuple(voxels.shape))


def _series_files(folder: Path) -> tuple[str, ...]:
    """Return the files of the folder's only series, sorted along the slice normal by GDCM."""
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not names:
        raise VolumeError(
            f"{folder}: a folder was given but it holds no DICOM series. Give an image file, or"
            " the series' folder."
        )
    series = {name: SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), name) for name in names}
    if len(series) > 1:
        listed = "; ".join(f"{name} ({len(files)} files)" for name, files in list(series.items())[:10])
        raise VolumeError(
            f"{folder}: expected one DICOM series, found {len(series)}: {listed}."
            " Put each series into its own folder."
        )
    files: tuple[str, ...] = next(iter(series.values()))
    if len(files) < 2:
        raise VolumeError(f"{folder}: the DICOM series has one slice; a volume needs at least two.")
    return files


def _slice_of(path: Path) -> _Slice:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        values = [
            tuple(float(part) for part in reader.GetMetaData(key).split("\\"))
            for key in (POSITION, ORIENTATION, PIXEL_SPACING)
        ]
    except (RuntimeError, ValueError) as error:
        raise VolumeError(
            f"{path}: the DICOM file does not say where its slice lies ({itk_reason(error)})."
        ) from error
    if [len(value) for value in values] != [3, 6, 2]:
        raise VolumeError(f"{path}: the DICOM file's position, orientation or pixel spacing is incomplete.")
    return _Slice(values[0], values[1], values[2], tuple(reader.GetSize()))


def _series_affine(slices: list[_Slice], folder: Path) -> Affine:
    """Return the affine that the slices' own positions give: a tilted gantry stays sheared, as it was."""
    first = slices[0]
    for part in ("orientation", "spacing", "size"):
        values = np.array([getattr(one, part) for one in slices])
        if np.abs(values - values[0]).max() > 1e-3:
            raise VolumeError(f"{folder}: the slices of the DICOM series differ in {part}. Split the series.")
    positions = np.array([one.position for one in slices])
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    off = np.linalg.norm(positions - (positions[0] + np.arange(len(slices))[:, None] * step), axis=1)
    length = float(np.linalg.norm(step))
    if length == 0 or off.max() > UNEVEN_PART * length:
        raise VolumeError(
            f"{folder}: the slices of the DICOM series are not evenly spaced (step {length:.3g} mm, one lies"
            f" {off.max():.3g} mm off). A slice is missing or doubled: copy the series again, or"
            " split its phases."
        )
    affine = np.eye(4)
    # DICOM gives the row spacing (down the rows) first; the first cosine triple runs along a row.
    affine[:3, 0] = np.array(first.orientation[:3]) * first.spacing[1]
    affine[:3, 1] = np.array(first.orientation[3:]) * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    affine = LPS_TO_RAS @ affine
    check_affine(affine, folder)
    return affine
