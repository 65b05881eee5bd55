"""Check a `.keras` file before Keras reads it: it may be a bad copy, or made to exhaust the memory."""

import zipfile
import zlib
from pathlib import Path

READABLE_BYTES = 2**30  # unpacked, of any file
MAX_RATIO = 100  # of unpacked to packed bytes, of larger files; Keras itself packs nothing
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


def check_archive(file: Path) -> None:
    """Check that a `.keras` file is whole, and that it does not unpack to far more than its size.

    Raises:
        ValueError: It is not; the message names the file and what to do.
    """
    if not zipfile.is_zipfile(file):  # Keras would report such a file as missing
        raise ValueError(f"{file} is no .keras file, or it is incomplete. Save or copy it again.")
    try:
        with zipfile.ZipFile(file) as archive:
            problem = _find_problem(archive, file)
    except DAMAGE as error:
        raise ValueError(f"{file} is damaged: {error} Copy or save it again.") from error
    if problem:
        raise ValueError(problem)


def _find_problem(archive: zipfile.ZipFile, file: Path) -> str | None:
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > READABLE_BYTES and unpacked > MAX_RATIO * file.stat().st_size:
        return (
            f"{file} unpacks to {unpacked / 1e9:.1f} GB, more than {MAX_RATIO} times its size. "
            "Save the network with model.save('name.keras')."
        )
    damaged = archive.testzip()  # reads every byte and compares the checksums
    return (
        f"{file} is damaged: {damaged} in it is not as it was written. Copy or save it again."
        if damaged
        else None
    )
