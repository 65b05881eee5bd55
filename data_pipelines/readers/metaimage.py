"""Read MetaImage, with its voxels in the same file or elsewhere.

Source:
    MetaIO documentation, https://docs.itk.org/en/latest/learn/metaio.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxlift.data_pipelines.readers.described import (
    VoxelData,
    read_described,
    read_header_text,
    resolve_data_file,
)
from voxlift.data_pipelines.readers.header_checks import (
    check_affine,
    check_dtype,
    fold_time_axis,
    image_shape,
    shape_to_decode,
    to_native_dtype,
)
from voxlift.data_pipelines.readers.units import find_mm_per_unit
from voxlift.data_pipelines.volume import LPS_TO_RAS, Affine, Stored, VolumeError

MAX_AXES = 10
MAX_CHANNELS = 100_000
MAX_FILES = 100_000

_DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # MetaIO stores four bytes on every system
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


@dataclass(frozen=True)
class MetaHeader:
    """The fields of a MetaImage header.

    Attributes:
        path: The file that starts with it.
        fields: Text by lower-case field name.
        size: Bytes of the header in the file.
        files: The data files; none where the voxels follow the header.
    """

    path: Path
    fields: Mapping[str, str]
    size: int
    files: tuple[Path, ...]

    def find(self, *names: str) -> str | None:
        """Return the text of the first of several names of one field, None where it is absent."""
        return next((self.fields[name.lower()] for name in names if name.lower() in self.fields), None)

    def is_true(self, *names: str, default: bool = False) -> bool:
        """Return a field that is true or false."""
        text = self.find(*names)
        return default if text is None else text[:1].lower() in ("t", "1", "y")

    def numbers(self, *names: str, count: int, default: float) -> np.ndarray:
        """Return a field of `count` numbers, the default where it is absent.

        Raises:
            VolumeError: It holds something else.
        """
        text = self.find(*names)
        if text is None:
            return np.full(count, default)
        try:
            values = np.array([float(word) for word in text.split()])
        except ValueError:
            values = np.empty(0)
        if len(values) < count:
            raise VolumeError(
                f"{self.path}: the MetaImage header's {names[0]} is {text!r}; expected {count} numbers."
            )
        return values[:count]


def read_metaimage(path: Path, *, time_axis: str = "error") -> Stored:
    """Return a MetaImage as stored.

    Args:
        path: The `.mha` file, or the header `.mhd`.
        time_axis: What a fourth axis or several channels become, see `readers.header_checks.TimeAxis`.

    Raises:
        VolumeError: The file is no volume, is damaged, or claims more than it holds.
    """
    header = read_metaimage_header(path)
    sizes, channels, dtype = _sizes(header), _channels(header), _dtype(header)
    if channels in (3, 4) and dtype == np.uint8:
        check_dtype(np.dtype([(name, "u1") for name in "RGBA"[:channels]]), path)
    kept = image_shape(sizes, path)
    shape = image_shape((*kept, channels), path) if channels > 1 else kept
    shape_to_decode(shape, time_axis, path)
    affine, notes = read_metaimage_affine(header)
    check_affine(affine, path)
    slope, inter, scaling_notes = _scaling(header)
    stored = read_described(path, _voxel_data(header, (channels, *sizes), dtype))
    voxels = np.moveaxis(stored, 0, -1).reshape(shape, order="F")
    folded, affine = fold_time_axis(voxels, affine, time_axis)
    return Stored(
        to_native_dtype(folded),
        affine,
        path,
        "metaimage",
        slope=slope,
        inter=inter,
        header_shape=sizes if channels == 1 else (*sizes, channels),
        notes=(*notes, *scaling_notes),
    )


def find_metaimage_files(path: Path) -> tuple[Path, ...]:
    """Return the data files that a header names; none where the voxels follow the header.

    Raises:
        VolumeError: The header is damaged.
    """
    return read_metaimage_header(path).files


def changes_itk_values(path: Path) -> bool:
    """Return whether a header states units or a scaling, which ITK ignores.

    Raises:
        VolumeError: The header is damaged.
    """
    header = read_metaimage_header(path)
    return any("(ITK" in note for note in (*read_metaimage_affine(header)[1], *_scaling(header)[2]))


def read_metaimage_header(path: Path) -> MetaHeader:
    """Return the header of a MetaImage.

    Raises:
        VolumeError: The file cannot be read, or names no data.
    """
    text, size = read_header_text(path, blank_line=False)
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        name, _, value = re.sub(r"^(\s*\w+\s*):", r"\1=", line, count=1).partition("=")
        fields.setdefault(name.strip().lower(), value.strip())
    source = fields.get("elementdatafile")
    if not source:
        raise VolumeError(
            f"{path}: the MetaImage header names no ElementDataFile. It is cut off or damaged: copy it again."
        )
    return MetaHeader(path, fields, size, _data_files(path, source, size))


def _data_files(path: Path, source: str, size: int) -> tuple[Path, ...]:
    """Return the files of `LOCAL` (none), `NAME`, `LIST [D]` or `NAME%03d MIN MAX STEP`."""
    words = source.split()
    if words[0].upper() == "LOCAL":
        return ()
    numbered = re.fullmatch(r"(.*)%(\d{0,2})d(.*?)\s+(\d+)\s+(\d+)\s+(\d+)", source)
    if words[0].upper() == "LIST":
        with path.open("rb") as file:
            file.seek(size)
            listed = file.read(2**22).decode("utf-8", "surrogateescape")
        names = tuple(filter(None, map(str.strip, listed.split("\n"))))
    elif numbered:
        first, last, step = (int(numbered[group]) for group in (4, 5, 6))
        pattern = f"%{numbered[2]}d"
        count = 0 if step == 0 else min((last - first) // step + 1, MAX_FILES + 1)
        names = tuple(numbered[1] + pattern % (first + step * at) + numbered[3] for at in range(count))
    else:
        names = (source,)
    if not 0 < len(names) <= MAX_FILES:
        raise VolumeError(f"{path}: the MetaImage header names no data file, or too many. Correct it.")
    return tuple(resolve_data_file(path, name) for name in names)


def _voxel_data(header: MetaHeader, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> VoxelData:
    encoding = "zlib" if header.is_true("CompressedData") else "raw"
    if encoding == "raw" and not header.is_true("BinaryData", default=True):
        encoding = "text"
    skipped = int(header.numbers("HeaderSize", count=1, default=0)[0].clip(-1, 2**40))
    start = skipped if skipped or header.files else header.size
    return VoxelData(header.files or (header.path,), shape, dtype, encoding, start=start)


def _sizes(header: MetaHeader) -> tuple[int, ...]:
    rank = header.find("NDims") or ""
    words = (header.find("DimSize") or "").split()
    try:
        sizes = tuple(map(int, words))
        is_valid = len(sizes) == int(rank) and 1 <= len(sizes) <= MAX_AXES
    except ValueError:
        is_valid = False
    if not is_valid:
        raise VolumeError(
            f"{header.path}: the MetaImage header's DimSize is {' '.join(words)!r} for NDims {rank!r};"
            " expected one whole number per axis."
        )
    return sizes


def _channels(header: MetaHeader) -> int:
    channels = float(header.numbers("ElementNumberOfChannels", count=1, default=1)[0])
    if not (channels.is_integer() and 1 <= channels <= MAX_CHANNELS):
        raise VolumeError(
            f"{header.path}: the MetaImage header's ElementNumberOfChannels is {channels:g}. It is damaged."
        )
    return int(channels)


def _dtype(header: MetaHeader) -> np.dtype[np.generic]:
    name = (header.find("ElementType") or "").upper()
    code = _DTYPES.get(name.removesuffix("_ARRAY"))
    if code is None:
        raise VolumeError(
            f"{header.path}: the MetaImage header's ElementType is {name!r}; expected one of"
            f" {', '.join(_DTYPES)}."
        )
    is_big = header.is_true("ElementByteOrderMSB", "BinaryDataByteOrderMSB")
    return np.dtype((">" if is_big else "<") + code)


def read_metaimage_affine(header: MetaHeader) -> tuple[Affine, tuple[str, ...]]:
    """Return the affine, index -> RAS+ mm, and notes on what had to be assumed or converted.

    Raises:
        VolumeError: A field is damaged.
    """
    rank = len(_sizes(header))
    notes = []
    spacing = header.numbers("ElementSpacing", "ElementSize", count=rank, default=1.0)
    if header.find("ElementSpacing", "ElementSize") is None:
        notes.append("the MetaImage header states no voxel size: 1 mm is assumed")
    origin = header.numbers("Offset", "Position", "Origin", count=rank, default=0.0)
    matrix_names = ("TransformMatrix", "Rotation", "Orientation")
    matrix = np.eye(rank)
    if header.find(*matrix_names) is not None:
        matrix = header.numbers(*matrix_names, count=rank * rank, default=0.0).reshape(rank, rank)
    unit = header.find("DistanceUnits") or ""
    scale = 1.0 if unit in ("", "?") else find_mm_per_unit(unit)
    if scale is None:
        notes.append(f"the MetaImage header's DistanceUnits is {unit}: millimetres are assumed")
    elif scale != 1:
        notes.append(
            f"the MetaImage header's DistanceUnits is {unit}: converted to millimetres (ITK ignores it)"
        )
    affine = np.eye(4)
    sides = min(rank, 3)
    with np.errstate(all="ignore"):
        # Each row of the file's matrix is the direction of one axis.
        affine[:sides, :sides] = matrix.T[:sides, :sides] * spacing[:sides] * (scale or 1.0)
        affine[:sides, 3] = origin[:sides] * (scale or 1.0)
        return LPS_TO_RAS @ affine, tuple(notes)


def _scaling(header: MetaHeader) -> tuple[float, float, tuple[str, ...]]:
    """Return slope and offset to intensities, and a note where they change the stored numbers."""
    names = ("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset")
    slope = float(header.numbers(names[0], count=1, default=1.0)[0])
    inter = float(header.numbers(names[1], count=1, default=0.0)[0])
    if (slope, inter) == (1.0, 0.0):
        return 1.0, 0.0, ()
    if slope == 0 or not np.isfinite([slope, inter]).all():
        return 1.0, 0.0, (f"the MetaImage header's scaling {slope:g} x + {inter:g} is unusable and ignored",)
    return slope, inter, (f"intensities are {slope:g} x + {inter:g} of the stored numbers (ITK ignores it)",)
