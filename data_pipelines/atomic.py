"""Write files atomically: a killed process leaves the old file or the new one, never half of one."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".writing-"


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
    temporary = target.with_name(f"{_PREFIX}{uuid.uuid4().hex}-{target.name[-40:]}")
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

    Args:
        folder: Where `atomic_write` wrote.
        min_age_s: Seconds since a file's last change after which it is removed. Use zero only where no other
            process can be writing into the folder.
    """
    for path in folder.glob(f"{_PREFIX}*"):
        # Another process may finish or remove it meanwhile.
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= min_age_s:
                path.unlink()


def _flush_to_disk(path: Path) -> None:
    # Otherwise a rename may reach the disk before the content that it names.
    with path.open("rb") as file:
        os.fsync(file.fileno())
