"""Read npz archives that others may have written: without pickles, and bounded by the size of the file."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

READABLE_BYTES = 2**28  # unpacked, of any file
MAX_RATIO = 100  # of unpacked to packed bytes, of larger files
DAMAGE = (  # what numpy, zipfile and zlib raise for content of any kind
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file; the checksum of each is checked.

    Args:
        path: The file.
        names: Arrays to read; None reads all.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ValueError: It is no npz file, is damaged, lacks an array, or unpacks to far more than its size.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    try:
        with path.open("rb") as stream:
            _refuse_bomb(stream, path.stat().st_size)
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in (file.files if names is None else names)}
    except DAMAGE as error:
        raise ValueError(str(error).strip().split("\n", maxsplit=1)[0][:200] or "it is damaged") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{name!r} in it is no array")  # noqa: TRY004 - the content is wrong, not a call
    return arrays


def _refuse_bomb(stream: Any, packed: int) -> None:  # noqa: ANN401 - a binary file
    with zipfile.ZipFile(stream) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > READABLE_BYTES and unpacked > MAX_RATIO * packed:
        raise ValueError(f"it unpacks to {unpacked / 1e9:.1f} GB, more than {MAX_RATIO} times its size")
