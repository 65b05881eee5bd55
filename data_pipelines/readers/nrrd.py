"""Read NRRD, with its voxels in the same file or elsewhere.

Source:
    Kindlmann, Definition of NRRD File Format, https://teem.sourceforge.net/nrrd/format.html
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

MAX_AXES = 16
MAX_FILES = 100_000

_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names.split(", ")}
_ENCODINGS = {
    "raw": "raw",
    "gz": "gzip",
    "gzip": "gzip",
    "bz2": "bzip2",
    "bzip2": "bzip2",
    "txt": "text",
    "text": "text",
    "ascii": "text",
    "hex": "hex",
}
# Signs from the space's axes to LPS. `scanner-xyz` agrees with LPS for a patient who lies on the back.
_SPACES = {
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
}
_NON_SPATIAL_KINDS = re.compile(
    r"list|point|vector|covariant|normal|stub|scalar|complex|quaternion|.*(color|matrix|vector|normal|gradient|direction)$"
)
_VECTOR = re.compile(r"\(([^()]*)\)|(none)", re.IGNORECASE)
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class NrrdHeader:
    """The fields of an NRRD header.

    Attributes:
        path: The file that starts with it.
        fields: Text by lower-case field name.
        size: Bytes of the header in the file.
        data_lines: The lines after `data file: LIST`.
    """

    path: Path
    fields: Mapping[str, str]
    size: int
    data_lines: tuple[str, ...] = ()

    def words(self, name: str) -> list[str]:
        """Return the words of a field; none where it is absent."""
        return self.fields.get(name, "").split()

    def numbers(self, name: str) -> list[float]:
        """Return the numbers of a field.

        Raises:
            VolumeError: One is not a number.
        """
        try:
            return [float(word) for word in self.words(name)]
        except ValueError:
            raise VolumeError(
                f"{self.path}: the NRRD header's {name!r} holds {self.fields[name]!r}; expected numbers."
            ) from None


def read_nrrd(path: Path, *, time_axis: str = "error") -> Stored:
    """Return an NRRD image as stored.

    Args:
        path: The `.nrrd` file, or the header of a detached one.
        time_axis: What a fourth axis or several components become, see `readers.header_checks.TimeAxis`.

    Raises:
        VolumeError: The file is no volume, is damaged, or claims more than it holds.
    """
    header = read_nrrd_header(path)
    data = _voxel_data(header)
    order, is_component = _order_axes(header)
    check_dtype(_colour_dtype(header, data, is_component), path)
    stored_shape = tuple(data.shape[axis] for axis in order)
    shape = image_shape(stored_shape, path)
    shape_to_decode(shape, time_axis, path)
    affine, notes = read_nrrd_affine(header)
    check_affine(affine, path)
    if "old min" in header.fields or "oldmin" in header.fields:
        notes = (*notes, "the NRRD header says that the values were quantised: they are kept as stored")
    voxels = read_described(path, data).transpose(order).reshape(shape, order="F")
    folded, affine = fold_time_axis(voxels, affine, time_axis)
    return Stored(to_native_dtype(folded), affine, path, "nrrd", header_shape=stored_shape, notes=notes)


def find_nrrd_files(path: Path) -> tuple[Path, ...]:
    """Return the data files that a header names; none where the voxels follow the header.

    Raises:
        VolumeError: The header is damaged.
    """
    header = read_nrrd_header(path)
    return _data_files(header) if _is_detached(header) else ()


def changes_itk_geometry(path: Path) -> bool:
    """Return whether a header states units or axis limits, which ITK ignores.

    Raises:
        VolumeError: The header is damaged.
    """
    notes = read_nrrd_affine(read_nrrd_header(path))[1]
    return any("(ITK" in note for note in notes)


def read_nrrd_header(path: Path) -> NrrdHeader:
    """Return the header of a file that starts with NRRD's magic.

    Raises:
        VolumeError: The file cannot be read, or a line is no field.
    """
    text, size = read_header_text(path, blank_line=True)
    lines = [line.rstrip("\r") for line in text.split("\n")][1:]
    fields: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        is_key = ":=" in line.split(": ", maxsplit=1)[0]  # free text of the user's, such as a segment's name
        if not line or line.startswith("#") or is_key:
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise VolumeError(f"{path}: line {number} of the NRRD header is no field. The file is damaged.")
        fields[re.sub(r"^datafile$", "data file", name.strip().lower())] = value.strip()
        if fields.get("data file", "").split()[:1] == ["LIST"]:
            return NrrdHeader(path, fields, size, tuple(filter(None, lines[number - 1 :])))
    return NrrdHeader(path, fields, size)


def _is_detached(header: NrrdHeader) -> bool:
    return "data file" in header.fields


def _voxel_data(header: NrrdHeader) -> VoxelData:
    encoding = _ENCODINGS.get(header.fields.get("encoding", "").lower())
    if encoding is None:
        raise VolumeError(
            f"{header.path}: the NRRD header's encoding is {header.fields.get('encoding')!r}; expected one of"
            f" {', '.join(_ENCODINGS)}."
        )
    return VoxelData(
        files=_data_files(header) if _is_detached(header) else (header.path,),
        shape=_sizes(header),
        dtype=_dtype(header, encoding),
        encoding=encoding,
        start=0 if _is_detached(header) else header.size,
        skip_lines=_whole_number(header, "line skip", "lineskip"),
        skip_bytes=_whole_number(header, "byte skip", "byteskip"),
    )


def _whole_number(header: NrrdHeader, *names: str) -> int:
    text = next((header.fields[name] for name in names if name in header.fields), "0")
    try:
        value = int(text)
    except ValueError:
        value = -2
    if not -1 <= value < 2**40 or (value < 0 and names[0] == "line skip"):
        raise VolumeError(f"{header.path}: the NRRD header's field {names[0]!r} is {text!r}. It is damaged.")
    return value


def _sizes(header: NrrdHeader) -> tuple[int, ...]:
    rank = header.words("dimension")
    try:
        sizes = tuple(map(int, header.words("sizes")))
        is_valid = len(sizes) == int(" ".join(rank)) and 1 <= len(sizes) <= MAX_AXES
    except ValueError:
        is_valid = False
    if not is_valid:
        raise VolumeError(
            f"{header.path}: the NRRD header's sizes are {header.fields.get('sizes')!r} for dimension"
            f" {header.fields.get('dimension')!r}; expected one whole number per axis."
        )
    return sizes


def _dtype(header: NrrdHeader, encoding: str) -> np.dtype[np.generic]:
    name = " ".join(header.words("type")).lower()
    code = _DTYPES.get(name)
    if code is None:
        raise VolumeError(f"{header.path}: the NRRD header's type is {name!r}; expected a number type.")
    endian = header.fields.get("endian", "").lower()
    if endian not in ("little", "big") and not (encoding == "text" or code[1] == "1"):
        raise VolumeError(
            f"{header.path}: the NRRD header's endian is {endian!r}; expected little or big. Correct it."
        )
    return np.dtype((">" if endian == "big" else "<") + code)


def _data_files(header: NrrdHeader) -> tuple[Path, ...]:
    """Return the files of `data file: NAME`, `NAME%03d MIN MAX STEP [DIM]` or `LIST [DIM]`."""
    value = header.fields["data file"]
    if value.split()[:1] == ["LIST"]:
        names = header.data_lines
    else:
        numbered = re.fullmatch(r"(.*%\d*d.*?)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)(\s+\d+)?", value)
        names = _numbered_names(header, numbered) if numbered else (value,)
    if not 0 < len(names) <= MAX_FILES or not all(names):
        raise VolumeError(f"{header.path}: the NRRD header names no data file, or too many. Correct it.")
    return tuple(resolve_data_file(header.path, name) for name in names)


def _numbered_names(header: NrrdHeader, numbered: re.Match[str]) -> tuple[str, ...]:
    first, last, step = (int(numbered[group]) for group in (2, 3, 4))
    if step == 0 or abs(last - first) > MAX_FILES * abs(step):
        raise VolumeError(f"{header.path}: the NRRD header numbers its data files {numbered[0]!r}.")
    width = re.search(r"%(\d*)d", numbered[1])
    if width is None or len(width[1]) > 2:
        raise VolumeError(f"{header.path}: the NRRD header numbers its data files {numbered[0]!r}.")
    numbers = range(first, last + (1 if step > 0 else -1), step)
    return tuple(numbered[1].replace(width[0], width[0] % number) for number in numbers)


def _axis_kinds(header: NrrdHeader) -> list[str]:
    rank = len(header.words("sizes"))
    kinds = [kind.lower() for kind in header.words("kinds")]
    return kinds if len(kinds) == rank else ["???"] * rank


def _directions(header: NrrdHeader) -> list[np.ndarray | None] | None:
    """Return the vector of each axis in space, None for an axis without; None where the field is absent."""
    if "space directions" not in header.fields:
        return None
    found = _VECTOR.findall(header.fields["space directions"])
    vectors = [None if none else _vector(header, text) for text, none in found]
    if len(vectors) != len(header.words("sizes")):
        raise VolumeError(
            f"{header.path}: the NRRD header's space directions are {header.fields['space directions']!r};"
            " expected a vector, or none, per axis."
        )
    return [None if one is None or np.isnan(one).all() else one for one in vectors]


def _vector(header: NrrdHeader, text: str) -> np.ndarray:
    try:
        vector = np.array([float(part) for part in text.split(",")])
    except ValueError:
        vector = np.empty(0)
    if len(vector) not in (2, 3, 4):
        raise VolumeError(f"{header.path}: the NRRD header holds the vector ({text}); expected 3 numbers.")
    return np.pad(vector, (0, max(0, 3 - len(vector))))


def _order_axes(header: NrrdHeader) -> tuple[list[int], list[bool]]:
    """Return the axes in the order space, time, components, and for each axis whether it is a component."""
    kinds, directions = _axis_kinds(header), _directions(header)
    is_component = [bool(_NON_SPATIAL_KINDS.fullmatch(kind)) for kind in kinds]
    is_time = [kind == "time" for kind in kinds]
    if directions is not None:
        for axis, vector in enumerate(directions):
            is_time[axis] |= vector is not None and len(vector) == 4 and not vector[:3].any()
            is_component[axis] |= vector is None and not is_time[axis]
    order = sorted(range(len(kinds)), key=lambda axis: (is_component[axis], is_time[axis]))
    return order, is_component


def _colour_dtype(header: NrrdHeader, data: VoxelData, is_component: list[bool]) -> np.dtype[np.generic]:
    """Return the type of a voxel: with several fields for colour, which is refused, complex for pairs."""
    for axis, kind in enumerate(_axis_kinds(header)):
        if kind in ("complex", "2d-complex"):
            return np.dtype(np.complex64)
        is_bytes = data.dtype == np.uint8 and data.shape[axis] in (3, 4)
        if kind.endswith("color") or (is_component[axis] and is_bytes and kind != "list"):
            return np.dtype([(name, "u1") for name in "RGBA"[: max(3, min(data.shape[axis], 4))]])
    return data.dtype


def read_nrrd_affine(header: NrrdHeader) -> tuple[Affine, tuple[str, ...]]:
    """Return the affine, index -> RAS+ mm, and notes on what had to be assumed or converted.

    Raises:
        VolumeError: A field is damaged.
    """
    affine, notes = np.eye(4), list[str]()
    directions = _directions(header)
    if directions is None:
        spacing, origin = _axis_limits(header, notes)
        affine[:3, :3], affine[:3, 3] = np.diag(spacing), origin
    else:
        vectors = [directions[axis] for axis in _order_axes(header)[0][:3]]
        if any(vector is None for vector in vectors):
            raise VolumeError(f"{header.path}: the NRRD header gives fewer than three axes in space.")
        affine[:3, :3] = np.stack([vector[:3] for vector in vectors if vector is not None], axis=1)
        affine[:3, 3] = _origin(header)
        affine[:3] *= _space_units(header, notes)[:, None]
    signs = _space_signs(header, notes, is_oriented=directions is not None)
    with np.errstate(all="ignore"):
        return LPS_TO_RAS @ np.diag([*signs, 1.0]) @ affine, tuple(notes)


def _origin(header: NrrdHeader) -> np.ndarray:
    found = _VECTOR.findall(header.fields.get("space origin", ""))
    origin = _vector(header, found[0][0]) if found and found[0][0] else np.zeros(3)
    return np.nan_to_num(origin[:3], nan=0.0, posinf=np.inf, neginf=-np.inf)


def _space_units(header: NrrdHeader, notes: list[str]) -> np.ndarray:
    """Return mm per unit of the three axes of space."""
    units = _WORD.findall(header.fields.get("space units", "")) or header.words("space units")
    return _convert_units(units[:3], notes, "space units")


def _convert_units(units: list[str], notes: list[str], field: str) -> np.ndarray:
    scales = [find_mm_per_unit(unit) for unit in units] + [1.0] * (3 - len(units))
    unknown = sorted({unit for unit, scale in zip(units, scales, strict=False) if scale is None})
    if unknown:
        notes.append(f"the NRRD header's {field} are {', '.join(unknown)}: millimetres are assumed")
    if any(scale not in (None, 1.0) for scale in scales):
        listed = ", ".join(units)
        notes.append(f"the NRRD header's {field} are {listed}: converted to millimetres (ITK ignores them)")
    return np.array([1.0 if scale is None else scale for scale in scales])


def _axis_limits(header: NrrdHeader, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return spacing and origin in mm of an image without directions, from spacings or the axes' limits."""
    order, sizes = _order_axes(header)[0][:3], _sizes(header)
    fields = {name: _per_axis(header, name) for name in ("spacings", "axis mins", "axis maxs")}
    centers = header.words("centers") or header.words("centerings") or ["cell"] * len(sizes)
    spacing, origin = np.ones(len(order)), np.zeros(len(order))
    has_limits = False
    for place, axis in enumerate(order):
        low, high = fields["axis mins"][axis], fields["axis maxs"][axis]
        is_node = axis < len(centers) and centers[axis].lower() == "node"
        if np.isfinite(fields["spacings"][axis]):
            spacing[place] = fields["spacings"][axis]
        elif np.isfinite(low + high):
            spacing[place] = (high - low) / max(sizes[axis] - is_node, 1)
            has_limits = True
        if np.isfinite(low):
            origin[place] = low if is_node else low + spacing[place] / 2
    if has_limits:
        notes.append("voxel sizes follow from the NRRD header's axis mins and axis maxs (ITK takes 1 mm)")
    elif not np.isfinite(fields["spacings"][order]).any():
        notes.append("the NRRD header states no voxel size: 1 mm is assumed")
    units = _WORD.findall(header.fields.get("units", ""))
    scale = _convert_units([units[axis] for axis in order if axis < len(units)], notes, "units")[: len(order)]
    pad = (0, 3 - len(order))
    return np.pad(spacing * scale, pad, constant_values=1.0), np.pad(origin * scale, pad)


def _per_axis(header: NrrdHeader, name: str) -> np.ndarray:
    """Return a number per axis, NaN where the header states none."""
    values = header.numbers(name)
    rank = len(header.words("sizes"))
    return np.array(values if len(values) == rank else [np.nan] * rank)


def _space_signs(header: NrrdHeader, notes: list[str], *, is_oriented: bool) -> tuple[int, int, int]:
    name = header.fields.get("space", "").lower().removesuffix("-time").removesuffix("t")
    if name in _SPACES and is_oriented:
        return _SPACES[name]
    if name != "left-posterior-superior":
        found = f"the space {name}" if name else "no space"
        notes.append(f"the NRRD header names {found}: left and right are a guess (taken as LPS, as ITK does)")
    return (1, 1, 1)
