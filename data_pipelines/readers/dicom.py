"""Read DICOM: a folder that holds one series, or one file of many frames."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK

from voxlift.data_pipelines.readers.decompress import MAX_BYTES
from voxlift.data_pipelines.readers.dicom_frames import ImagePlane, read_frame_planes, sort_frames
from voxlift.data_pipelines.readers.header_checks import check_affine, to_native_dtype
from voxlift.data_pipelines.readers.itk import LPS_TO_RAS, array_of_image, read_itk, shorten_itk_error
from voxlift.data_pipelines.volume import Affine, Stored, VolumeError

POSITION, ORIENTATION, PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
SCALE = (("0028|1053", 1.0), ("0028|1052", 0.0))
"""Tags of slope and offset, each with its default."""

UNEVEN_TOLERANCE = 0.1
"""Of the step: a slice farther off its even position means that one is missing or doubled."""


def read_dicom_series(folder: Path) -> Stored:
    """Return the one DICOM series of a folder as a volume, rescaled to its real values (HU for CT).

    Args:
        folder: Holds the files of one series; other files are ignored.

    Raises:
        VolumeError: No series, several, missing or doubled slices, or slices that do not fit together.
    """
    files = _series_files(folder)
    if len(files) == 1:
        if _open(Path(files[0])).GetSize()[2:] == (1,):
            raise VolumeError(f"{folder}: the DICOM series has one slice; a volume needs at least two.")
        return read_dicom_file(Path(files[0]))
    slices = [_plane_of(Path(file)) for file in files]
    affine = series_affine(slices, folder)
    if np.prod(slices[0].size[:2], dtype=float) * len(files) * 4 > MAX_BYTES:
        raise VolumeError(f"{folder}: the series needs more than {MAX_BYTES / 2**30:.0f} GiB once decoded.")
    voxels = to_native_dtype(array_of_image(_read_slices(folder, files, slices)))
    return Stored(voxels, affine, folder, "dicom", header_shape=tuple(voxels.shape))


def read_dicom_file(path: Path, *, time_axis: str = "error") -> Stored:
    """Return one DICOM file of many frames as a volume, its frames in the order of their positions.

    Args:
        path: The file.
        time_axis: As for `read_itk`.

    Raises:
        VolumeError: It holds one slice, or frames that are not evenly spaced.
    """
    stored = read_itk(path, kind="dicom", time_axis=time_axis)
    planes = read_frame_planes(path)
    if planes is None:
        note = "the DICOM frames do not state their positions: they are assumed to be evenly spaced in order"
        return replace(stored, notes=(*stored.notes, note))
    order = sort_frames(planes, path)
    affine = series_affine([planes[index] for index in order], path)
    is_sorted = (order == np.arange(len(order))).all()
    return replace(stored, voxels=stored.voxels if is_sorted else stored.voxels[:, :, order], affine=affine)


def _series_files(folder: Path) -> tuple[str, ...]:
    """Return the files of the folder's only series, sorted along the slice normal by GDCM."""
    shown = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.GlobalWarningDisplayOff()  # our own message follows
    try:
        names = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(shown)
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
    return files


def _read_slices(folder: Path, files: tuple[str, ...], slices: list[ImagePlane]) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(files)
    if len({one.scale for one in slices}) > 1:
        # ITK would round all slices to the type that the scaling of the first one gives.
        reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise VolumeError(
            f"{folder}: the DICOM series is not readable ({shorten_itk_error(error)})."
        ) from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise VolumeError(
            f"{folder}: expected one number per voxel, received colour. Convert it to grey values."
        )
    return image


def _open(path: Path) -> SimpleITK.ImageFileReader:
    """Return a reader that has read a DICOM file's header, and no voxel."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise VolumeError(
            f"{path}: the DICOM header is not readable ({shorten_itk_error(error)})."
        ) from error
    return reader


def _plane_of(path: Path) -> ImagePlane:
    header = _open(path)
    size = tuple(header.GetSize())
    if size[2:] != (1,):
        raise VolumeError(
            f"{path}: a DICOM file of several frames among others of its series. Give each file separately."
        )
    try:
        values = [
            tuple(float(part) for part in header.GetMetaData(key).split("\\"))
            for key in (POSITION, ORIENTATION, PIXEL_SPACING)
        ]
        scale = [
            float(header.GetMetaData(key)) if header.HasMetaDataKey(key) else default
            for key, default in SCALE
        ]
    except (RuntimeError, ValueError) as error:
        raise VolumeError(
            f"{path}: the DICOM file does not state the position of its slice ({shorten_itk_error(error)})."
        ) from error
    if [len(value) for value in values] != [3, 6, 2]:
        raise VolumeError(f"{path}: the DICOM file's position, orientation or pixel spacing is incomplete.")
    return ImagePlane(values[0], values[1], values[2], size, (scale[0], scale[1]))


def series_affine(slices: list[ImagePlane], folder: Path) -> Affine:
    """Return the affine, index -> RAS+ mm, that the slices' positions give; a tilted gantry stays sheared.

    Args:
        slices: At least two, sorted along their normal.
        folder: Folder or file, for the messages.

    Raises:
        VolumeError: The slices differ in orientation, spacing or size, or are not evenly spaced.
    """
    first = slices[0]
    for part in ("orientation", "spacing", "size"):
        values = np.array([getattr(one, part) for one in slices])
        if np.abs(values - values[0]).max() > 1e-3:
            raise VolumeError(f"{folder}: the slices of the DICOM series differ in {part}. Split the series.")
    positions = np.array([one.position for one in slices])
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    off = np.linalg.norm(positions - (positions[0] + np.arange(len(slices))[:, None] * step), axis=1)
    length = float(np.linalg.norm(step))
    if length == 0 or off.max() > UNEVEN_TOLERANCE * length:
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
