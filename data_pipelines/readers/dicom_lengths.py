"""Check the lengths that the elements of a DICOM file claim, before GDCM reserves memory for them.

GDCM reserves and clears as many bytes as an element claims, up to 4 GB, whatever the file holds. Here only
tags and lengths are read.

Source:
    DICOM PS3.5, 7.1 Data Elements, https://dicom.nema.org/medical/dicom/current
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from voxlift.data_pipelines.readers.recognise import LONG_REPRESENTATIONS, VALUE_REPRESENTATIONS

UNDEFINED = 0xFFFFFFFF
ITEM, PIXEL_DATA, TRANSFER_SYNTAX = 0xFFFEE000, 0x7FE00010, 0x00020010
_DELIMITERS = (0xFFFEE00D, 0xFFFEE0DD)
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"


@dataclass(frozen=True)
class _Element:
    """The tag of an element, where its value begins, and the bytes that it claims; an item has no VR."""

    tag: int
    representation: bytes
    value: int
    length: int


def find_overlong_element(path: Path) -> str:
    """Return a sentence if an element claims more bytes than the file holds; empty otherwise.

    Values that are packed (deflated files) or of unknown form are not followed.

    Args:
        path: A DICOM file, with or without preamble.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            return _walk(raw)
    except (OSError, ValueError):
        return ""  # empty or unreadable, which the reader reports


def _walk(raw: mmap.mmap) -> str:
    position = 132 if raw[128:132] == b"DICM" else 0
    order, is_explicit = _guess_form(raw, position)
    is_packed, syntax = False, None
    ends: list[int] = []  # of the sequences that are open
    while position + 8 <= len(raw):
        is_meta = raw[position : position + 2] == b"\2\0"
        if not is_meta and syntax is not None:  # the meta information ends here
            order = ">" if syntax == _BIG_ENDIAN else "<"
            is_explicit, syntax = syntax != _IMPLICIT, None
        element = _read_element(raw, position, order, is_explicit=is_explicit or is_meta)
        ends = [end for end in ends if position < end]
        problem = _describe_overlong(element, len(raw)) or _describe_stray(element, ends)
        if problem or (element.length == UNDEFINED and element.representation == b"UN"):
            return problem  # the content of an unknown element may have another form
        if element.tag == TRANSFER_SYNTAX:
            syntax = raw[element.value : element.value + element.length].rstrip(b"\0 ")
            if syntax == _DEFLATED:
                return ""
        is_packed = is_packed or (element.tag == PIXEL_DATA and element.length == UNDEFINED)
        is_entered = _is_entered(raw, element, order, is_packed=is_packed)
        if is_entered and element.tag != ITEM and element.tag not in _DELIMITERS:
            ends.append(len(raw) if element.length == UNDEFINED else element.value + element.length)
        position = element.value if is_entered else element.value + element.length
    return ""


def _guess_form(raw: mmap.mmap, position: int) -> tuple[str, bool]:
    """Return the byte order of the first element, and whether it states its VR."""
    is_little = raw[position : position + 1] != b"\0"  # the low byte of the group stands first
    return "<" if is_little else ">", raw[position + 4 : position + 6] in VALUE_REPRESENTATIONS


def _describe_overlong(element: _Element, size: int) -> str:
    if element.length == UNDEFINED or element.value + element.length <= size:
        return ""
    tag = f"({element.tag >> 16:04x},{element.tag & 0xFFFF:04x})"
    held = max(size - element.value, 0)
    return f"the element {tag} claims {element.length:,} bytes, the file holds {held:,} after it"


def _describe_stray(element: _Element, ends: list[int]) -> str:
    """Return a sentence about an item outside of every sequence, whose value GDCM would take for a length."""
    return "" if ends or element.tag != ITEM else "the element (fffe,e000) is an item outside of any sequence"


def _is_entered(raw: mmap.mmap, element: _Element, order: str, *, is_packed: bool) -> bool:
    """Return whether the next element is inside this one: in a sequence or an item, not in packed frames."""
    if element.length == UNDEFINED or element.tag in _DELIMITERS:
        return True
    if element.tag == ITEM:
        return not is_packed
    first_item = struct.pack(f"{order}HH", ITEM >> 16, ITEM & 0xFFFF)
    return element.representation in (b"SQ", b"") and raw[element.value : element.value + 4] == first_item


def _read_element(raw: mmap.mmap, position: int, order: str, *, is_explicit: bool) -> _Element:
    """Return the element at a position; one of an unknown VR is read as one without, as GDCM reads it."""
    group, number = struct.unpack_from(f"{order}HH", raw, position)
    tag = group << 16 | number
    representation = raw[position + 4 : position + 6]
    if group == 0xFFFE or not is_explicit or representation not in VALUE_REPRESENTATIONS:
        return _Element(tag, b"", position + 8, struct.unpack_from(f"{order}I", raw, position + 4)[0])
    if representation not in LONG_REPRESENTATIONS:
        length = struct.unpack_from(f"{order}H", raw, position + 6)[0]
        return _Element(tag, representation, position + 8, length)
    ending = raw[position + 8 : position + 12].ljust(4, b"\0")
    return _Element(tag, representation, position + 12, struct.unpack(f"{order}I", ending)[0])
