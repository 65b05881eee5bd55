"""What a path is, before anything opens it, and files that are written atomically.

Every command finds and checks its images here. A folder is walked so that each real file is found once under
its plainest name, whatever links there are; a loop of links, a pipe, a socket or a device is reported and
never opened. A process that is killed while it writes leaves the old file or the new one, never half of one.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("voxlift")

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".mgh", ".mgz", ".nrrd", ".nhdr", ".mha", ".mhd")
DICOM_DIRECTORY = "DICOMDIR"

# Written by macOS, Windows, and network drives beside the user's own files.
_SYSTEM_NAMES = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "lost+found",
        "system volume information",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    }
)
_SPECIAL_FILES: dict[Callable[[int], bool], str] = {
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
_PREFIX = ".writing-"
_MACHINE_FILES = ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid")  # within which a PID is one process


@dataclass(frozen=True)
class PathKind:
    """What a path is.

    Attributes:
        name: `file`, `folder`, `absent`, or `other` for what is there and cannot be read.
        problem: What follows the path in a message where it is neither file nor folder; empty otherwise.
    """

    name: str
    problem: str = ""


def find_kind(path: Path) -> PathKind:
    """Return what a path is, links followed; nothing is opened, and nothing is raised."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        return _kind_of_error(path, error)
    if stat.S_ISREG(mode):
        return PathKind("file")
    if stat.S_ISDIR(mode):
        return PathKind("folder")
    found = next((name for is_kind, name in _SPECIAL_FILES.items() if is_kind(mode)), "no regular file")
    return PathKind(
        "other", f"expected an image file, found {found}, which is not read. Copy the image there."
    )


def _kind_of_error(path: Path, error: OSError | ValueError) -> PathKind:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.ELOOP:
        return PathKind(
            "other", "the link points back to itself. Replace it with the file or the right link."
        )
    if os.path.islink(path):  # noqa: PTH114 - unlike the method it raises nothing, whatever the name
        target = path.readlink()
        return PathKind("absent", f"a link to {target}, which does not exist. Fetch the file it points to.")
    if code in (errno.ENOENT, errno.ENOTDIR):
        return PathKind("absent", "no such file. Check the path in the table, or its root folder.")
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return PathKind("other", f"cannot be read ({reason}).")


def is_file(path: Path) -> bool:
    """Return whether a path is a regular file, links followed."""
    return find_kind(path).name == "file"


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder, links followed."""
    return find_kind(path).name == "folder"


def is_absent(path: Path) -> bool:
    """Return whether nothing is at a path; a loop of links or a pipe is something that cannot be read."""
    return find_kind(path).name == "absent"


def find_real_path(path: Path) -> Path:
    """Return the absolute path without links; a loop of links or an impossible name stays as it is."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        return path.absolute()


def is_system_entry(path: Path) -> bool:
    """Return whether an entry is hidden, or was written by an operating system rather than by the user.

    >>> [is_system_entry(Path(name)) for name in ("._a.nii.gz", "__MACOSX", "Thumbs.db", "a.nii.gz")]
    [True, True, True, False]
    """
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_NAMES


def has_image_name(path: Path) -> bool:
    """Return whether a name ends like an image's."""
    return path.name.lower().endswith(IMAGE_SUFFIXES)


def list_entries(folder: Path) -> list[Path]:
    """Return the user's own entries of a folder, sorted; none of a folder that cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if not is_system_entry(path))
    except OSError as error:
        log.warning("%s: the folder cannot be listed (%s); its files are left out.", folder, error.strerror)
        return []


def is_link_to_folder_above(path: Path) -> bool:
    """Return whether a path leads to a folder that contains it, which would never end; warn if so."""
    real, parent = find_real_path(path), find_real_path(path.parent)
    if real not in (parent, *parent.parents):
        return False
    log.warning("%s: a link to %s, which contains it; it is not followed.", path, real)
    return True


class FolderWalk:
    """Lists the entries of folders below one folder, each real file and folder once.

    What is reached through a link counts only if it is nowhere in the folder under its own name, and a link
    to a folder that contains it is not followed.

    Args:
        top: The folder.
    """

    def __init__(self, top: Path) -> None:
        self._top = top
        self._plain = {top}  # folders reached without a link
        self._seen: set[Path] | None = None  # real paths; collected when the first link is met

    def entries(self, folder: Path) -> list[Path]:
        """Return the entries of the top folder or one below it, without what was listed before."""
        if folder not in self._plain:
            return [path for path in list_entries(folder) if self._is_first(path)]
        plain = {path for path in list_entries(folder) if not path.is_symlink()}
        self._plain |= plain
        return [path for path in list_entries(folder) if path in plain or self._is_first(path)]

    def _is_first(self, path: Path) -> bool:
        """Return whether the real file of a link, or of a path below one, was not listed before."""
        if self._seen is None:
            top = find_real_path(self._top)
            self._seen = {top, *top.parents, *_list_without_links(top)}
        if is_link_to_folder_above(path):
            return False
        real = find_real_path(path)
        is_first = real not in self._seen
        self._seen.add(real)
        return is_first


def _list_without_links(folder: Path) -> Iterator[Path]:
    """Yield all that is below a folder under its own name."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    continue
                yield Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    yield from _list_without_links(Path(entry.path))
    except OSError:
        return


def escape_name(text: str) -> str:
    r"""Return text with the bytes of a file's name that are not UTF-8 written as `\xe9`.

    >>> print(escape_name("caf\udce9.nii"))
    caf\xe9.nii
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_utf8(path: Path) -> bool:
    """Return whether a path can be written in UTF-8, which libraries in C++ expect."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def linked_as_ascii(files: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """Yield links with plain names to files, and the file of each; they are removed at the end.

    Args:
        files: In the order that the links' names keep.

    Yields:
        The file of each link; all links are in one folder that holds nothing else.
    """
    with tempfile.TemporaryDirectory(prefix="voxlift-") as folder:
        links = {Path(folder, f"{number:06d}"): file for number, file in enumerate(files)}
        for link, file in links.items():
            link.symlink_to(file.absolute())
        yield links


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
