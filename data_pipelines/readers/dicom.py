"""Read DICOM: a folder that holds one series, or one file of many frames."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK

from voxlift.data_pipelines.errors import list_some
from voxlift.data_pipelines.files import DICOM_DIRECTORY, is_file, is_utf8, linked_as_ascii, list_entries
from voxlift.data_pipelines.readers.decompress import MAX_BYTES
from voxlift.data_pipelines.readers.dicom_frames import (
    VALUE_TAGS,
    Frames,
    ImagePlane,
    find_class,
    find_value_notes,
    read_dicom_header,
    read_frames,
    sort_frames,
)
from voxlift.data_pipelines.readers.dicom_lengths import find_overlong_element
from voxlift.data_pipelines.readers.header_checks import check_affine, to_native_dtype
from voxlift.data_pipelines.readers.itk import array_of_image, read_itk, shorten_itk_error
from voxlift.data_pipelines.readers.recognise import is_dicom_image
from voxlift.data_pipelines.volume import LPS_TO_RAS, Affine, Stored, VolumeError

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
    entries = list_entries(folder)
    files = [path for path in entries if is_file(path) and path.name.upper() != DICOM_DIRECTORY]
    if len(files) == len(list(folder.iterdir())) and all(map(is_utf8, files)):
        return _read_series(folder, folder)
    # GDCM would open pipes, follow a DICOMDIR, and end the process at a name that is not UTF-8.
    with linked_as_ascii(files) as links, _with_own_names({**links, _folder_of(links, folder): folder}):
        stored = _read_series(_folder_of(links, folder), folder)
        return replace(stored, source=folder)


def read_dicom_file(path: Path, *, time_axis: str = "error") -> Stored:
    """Return one DICOM file of many frames as a volume, its frames in the order of their positions.

    Args:
        path: The file.
        time_axis: As for `read_itk`.

    Raises:
        VolumeError: It holds one slice, or frames that are not evenly spaced.
    """
    if is_utf8(path):
        return _read_frames(path, time_axis)
    with linked_as_ascii([path]) as links, _with_own_names(links):
        return replace(_read_frames(next(iter(links)), time_axis), source=path)


def _folder_of(links: Mapping[Path, Path], folder: Path) -> Path:
    return next(iter(links)).parent if links else folder


@contextmanager
def _with_own_names(names: Mapping[Path, Path]) -> Iterator[None]:
    """Name the files themselves in errors that name their links."""
    try:
        yield
    except VolumeError as error:
        message = str(error)
        for link, path in names.items():
            message = message.replace(str(link), str(path))
        raise VolumeError(message) from error


def _read_series(folder: Path, shown: Path) -> Stored:
    entries = list_entries(folder)
    if not entries:
        raise _no_series(shown)
    _refuse_damaged([path for path in entries if is_dicom_image(path)], folder)
    files = _series_files(folder)
    if len(files) == 1:
        if _open(Path(files[0])).GetSize()[2:] == (1,):
            raise VolumeError(f"{folder}: the DICOM series has one slice; a volume needs at least two.")
        return read_dicom_file(Path(files[0]))
    slices = [_plane_of(Path(file)) for file in files]
    affine = series_affine(slices, folder)
    if np.prod(slices[0].size[:2], dtype=float) * len(files) * 4 > MAX_BYTES:
        raise VolumeError(f"{folder}: the series needs more than {MAX_BYTES / 1e9:.1f} GB once decoded.")
    voxels = to_native_dtype(array_of_image(_read_slices(folder, files, slices)))
    notes = find_value_notes(read_dicom_header(Path(files[0]), only=VALUE_TAGS))
    return Stored(voxels, affine, folder, "dicom", header_shape=tuple(voxels.shape), notes=notes)


def _refuse_damaged(files: Sequence[Path], shown: Path) -> None:
    """Raise if a file is cut off, before GDCM leaves it out or reserves memory for what it claims."""
    problems = [(path, find_overlong_element(path)) for path in files]
    found = [f"{path.name}: {problem}" for path, problem in problems if problem]
    if found:
        raise VolumeError(
            f"{shown}: {len(found)} DICOM file(s) are cut off or damaged: {list_some(found)}. Copy them again"
            " from their source."
        )


def _no_series(folder: Path) -> VolumeError:
    return VolumeError(
        f"{folder}: a folder was given but it holds no DICOM series. Give an image file, or"
        " the series' folder."
    )


def _read_frames(path: Path, time_axis: str) -> Stored:
    _refuse_damaged([path], path)
    stored = read_itk(path, kind="dicom", time_axis=time_axis)
    frames = read_frames(path)
    stored = _apply_scale(stored, frames, path)
    stored = replace(stored, notes=(*stored.notes, *frames.notes))
    if not frames.planes:
        note = "the DICOM frames do not state their positions: they are assumed to be evenly spaced in order"
        return replace(stored, notes=(*stored.notes, note))
    order = sort_frames(frames.planes, path)
    affine = series_affine([frames.planes[index] for index in order], path)
    is_sorted = (order == np.arange(len(order))).all()
    return replace(stored, voxels=stored.voxels if is_sorted else stored.voxels[:, :, order], affine=affine)


def _apply_scale(stored: Stored, frames: Frames, path: Path) -> Stored:
    """Return the image with the scaling of its frames, where GDCM left it out."""
    if not frames.scales:
        return stored
    if len(set(frames.scales)) > 1:
        raise VolumeError(f"{path}: the DICOM frames are scaled differently. Export the volume as NIfTI.")
    slope, inter = frames.scales[0]
    if slope == 0 or not np.isfinite([slope, inter]).all():
        raise VolumeError(f"{path}: the DICOM frames are scaled by {slope:g} x + {inter:g}. It is damaged.")
    note = (
        f"values are {slope:g} x + {inter:g} of the stored numbers, by the functional groups (ITK ignores it)"
    )
    return replace(stored, slope=slope, inter=inter, notes=(*stored.notes, note))


def _series_files(folder: Path) -> tuple[str, ...]:
    """Return the files of the folder's only series, sorted along the slice normal by GDCM."""
    shown = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.GlobalWarningDisplayOff()  # our own message follows
    try:
        names = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(shown)
    if not names:
        _refuse_unread(list_entries(folder), folder, "")
        raise _no_series(folder)
    series = {name: SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), name) for name in names}
    if len(series) > 1:
        listed = "; ".join(f"{name} ({len(files)} files)" for name, files in list(series.items())[:10])
        raise VolumeError(
            f"{folder}: expected one DICOM series, found {len(series)}: {listed}."
            " Put each series into its own folder."
        )
    files: tuple[str, ...] = next(iter(series.values()))
    read = {Path(file).name for file in files}
    left = [path for path in list_entries(folder) if path.name not in read]
    _refuse_unread(left, folder, find_class(Path(files[0])) if left else "")
    return files


def _refuse_unread(files: Sequence[Path], folder: Path, series_class: str) -> None:
    """Raise if GDCM left out a slice: the volume would lack it, and nobody would know.

    Args:
        files: Those that it left out; reports and other documents may be among them.
        folder: For the message.
        series_class: The SOP class of the slices that it read; empty where there is none.
    """
    unread = [path for path in files if is_dicom_image(path) and series_class.startswith(find_class(path))]
    if unread or (not series_class and any(map(is_dicom_image, files))):
        named = [path.name for path in unread or filter(is_dicom_image, files)]
        raise VolumeError(
            f"{folder}: {len(named)} DICOM file(s) cannot be read, so slices would be missing:"
            f" {list_some(named)}. They are cut off or damaged: copy them again from their source."
        )


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
