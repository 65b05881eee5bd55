"""Decode the bytes of a text table: UTF-8 or UTF-16 with a byte order mark, else Windows-1252."""

from __future__ import annotations

import codecs
import contextlib
import functools
import logging
import unicodedata
from pathlib import Path

from voxlift.data_pipelines.errors import ManifestError, list_some

log = logging.getLogger("voxlift")

OLD_EXCEL = b"\xd0\xcf\x11\xe0"  # how the container of an .xls file begins
_CONTROLS = frozenset("\t\r\n\v\f\x1c\x1d\x1e\x1f")  # that stand in texts


def decode_text(raw: bytes, path: Path) -> str:
    """Return the text of a table's file.

    Args:
        raw: Content of the file.
        path: The file, for messages.

    Raises:
        ManifestError: It is no text.
    """
    if raw.startswith(OLD_EXCEL):
        raise ManifestError(f"The table {path} is an old Excel file. Save it as .xlsx or as CSV in UTF-8.")
    # Excel's "Unicode text" is UTF-16 with a byte order mark.
    is_utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = raw.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        text = _decode_windows(raw, path, error)
    if "\0" in text:
        raise ManifestError(f"The table {path} contains binary data. Export it as CSV or TSV text.")
    return text


def _decode_windows(raw: bytes, path: Path, error: UnicodeDecodeError) -> str:
    """Decode what Western European spreadsheets save as CSV by default, with a warning."""
    with contextlib.suppress(UnicodeDecodeError):
        text = raw.decode("cp1252")
        if not any(unicodedata.category(char) == "Cc" for char in set(text) - _CONTROLS):
            _warn_of_windows(path, list_some(sorted({char for char in text if not char.isascii()})))
            return text
    raise ManifestError(
        f"The table {path} is not UTF-8 text (byte {error.start}). Save it as CSV in UTF-8, or as .xlsx."
    ) from error


@functools.cache  # a command reads its table several times, and warns once
def _warn_of_windows(path: Path, characters: str) -> None:
    log.warning(
        "%s is not UTF-8; it was read as Windows-1252, with the characters %s. If they look wrong, save "
        "it as CSV in UTF-8.",
        path,
        characters,
    )
