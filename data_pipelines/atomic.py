"""Write files atomically: a killed process leaves the old file or the new one, never half of one."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".writing-"
_MACHINE_FILES = ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid")  # within which a PID is one process


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; when the block succeeds, rename it to `target`.

    The temporary name is unique, so parallel writers do not disturb each other (the last one to finish wins),
    and ends like the target's, for writers that choose the format by the ending. The file's permissions are
    those that writing to `target` itself would give.

    Args:
        target: The file to write; an existing one is replaced. Its folder exists.

    Yields:
        The path to write to.

    Raises:
        OSError: Writing failed, such as on a full disk; it names `target`, and an existing file is unchanged.
    """
    # Cut, since file systems limit a name to 255 bytes.
    unique = f"{_machine()}-{os.getpid()}-{uuid.uuid4().hex}"
    temporary = target.with_name(f"{_PREFIX}{unique}-{target.name[-40:]}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, *, min_age_s: float = 3600.0) -> None:
    """Remove the temporary files that killed writers left in a folder.

    Those of a process of this machine that has ended are removed at once, others by their age.

    Args:
        folder: Where `atomic_write` wrote; it may be missing.
        min_age_s: Seconds since a file's last change after which it is removed. Use zero only where no other
            process can be writing into the folder.
    """
    for path in folder.glob(f"{_PREFIX}*"):
        # Another process may finish or remove it meanwhile.
        with suppress(FileNotFoundError):
            if _has_ended(path) or time.time() - path.stat().st_mtime >= min_age_s:
                path.unlink()


def is_leftover(path: Path) -> bool:
    """Return whether a file is a temporary one of a writer, as its name says."""
    return path.name.startswith(_PREFIX)


def _has_ended(path: Path) -> bool:
    """Return whether the writer of a temporary file was a process of this machine that exists no more."""
    found = re.match(rf"{re.escape(_PREFIX)}([0-9a-f]{{8}})-([0-9]{{1,9}})-", path.name)
    if found is None or not _machine() or found[1] != _machine():
        return False
    try:
        os.kill(int(found[2]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it exists and is another user's
        return False
    return False


@functools.cache
def _machine() -> str:
    """Return a digest of what a process number belongs to; empty where the system does not say."""
    try:
        boot, namespace = Path(_MACHINE_FILES[0]).read_bytes(), Path(_MACHINE_FILES[1]).readlink()
    except OSError:
        return ""
    return hashlib.sha256(boot + bytes(namespace)).hexdigest()[:8]


def _flush_to_disk(path: Path) -> None:
    # Otherwise a rename may reach the disk before the content that it names.
    with path.open("rb") as file:
        os.fsync(file.fileno())
