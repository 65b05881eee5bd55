"""Recognise NRRD, MetaImage and DICOM by the first bytes of a file."""

import re
import struct
from pathlib import Path

from voxlift.data_pipelines.files import is_file

HEAD_BYTES = 540
_METAIMAGE = re.compile(
    rb"\s*(ObjectType|ObjectSubType|NDims|Comment|Name|ID|DimSize|BinaryData|Modality)\s*[=:]"
)
_DICOM_DIRECTORY = re.compile(rb"1\.2\.840\.10008\.1\.3\.10(?![\d.])")  # Media Storage Directory
VALUE_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT"
    b" UV".split()
)
LONG_REPRESENTATIONS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


def find_format(head: bytes) -> str | None:
    """Return "nrrd", "metaimage", "dicom" or "dicomdir" if the bytes start such a file, otherwise None.

    Args:
        head: The first `HEAD_BYTES` of a file, or all of a shorter one.
    """
    if head[:4] == b"NRRD":
        return "nrrd"
    if head[128:132] == b"DICM":
        return "dicomdir" if _DICOM_DIRECTORY.search(head) else "dicom"
    if _METAIMAGE.match(head):
        return "metaimage"
    return "dicom" if _starts_data_set(head) else None


def is_dicom_image(path: Path) -> bool:
    """Return whether a file is DICOM, with or without preamble, and no DICOMDIR; nothing is raised."""
    if not is_file(path):
        return False
    try:
        with path.open("rb") as file:
            return find_format(file.read(HEAD_BYTES)) == "dicom"
    except OSError:
        return False


def _starts_data_set(head: bytes) -> bool:
    """Return whether bytes are elements of group 0002 or 0008 in rising order: DICOM without preamble."""
    order = "<" if head[:2] in (b"\2\0", b"\x08\0") else ">"
    position, last, count = 0, 0, 0
    while count < 3 and position + 12 <= len(head):
        group, element = struct.unpack_from(f"{order}HH", head, position)
        tag = group << 16 | element
        if group not in (0x0002, 0x0008) or tag < last or (tag == last and count):
            return False
        size, length = _element_size(head, position, order)
        if length == 0xFFFFFFFF:  # a sequence of undefined length
            return count > 0
        if length > 2**16 or length % 2:
            return False
        position, last, count = position + size + length, tag, count + 1
    return count == 3 or (count > 0 and position > len(head))


def _element_size(head: bytes, position: int, order: str) -> tuple[int, int]:
    """Return the bytes of an element before its value, and those of its value."""
    representation = head[position + 4 : position + 6]
    if representation not in VALUE_REPRESENTATIONS:
        return 8, int(struct.unpack_from(f"{order}I", head, position + 4)[0])
    if representation in LONG_REPRESENTATIONS:
        return 12, int(struct.unpack_from(f"{order}I", head, position + 8)[0])
    return 8, int(struct.unpack_from(f"{order}H", head, position + 6)[0])
