"""Make standard output and standard error safe to print to, whatever they are connected to."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

READER_LEFT = frozenset({errno.EPIPE, errno.EIO})  # of a pipe (`| head`), of a terminal that was closed


def prepare_streams() -> None:
    """Let the command run to its end, and its exit status mean what it says, whoever reads its output.

    A closed stream (`>&-`) becomes the null device; so does one whose reader leaves (`| head`, `| true`).
    Where standard output cannot be written for another reason, such as a full disk, an error names it.
    Streams that a caller of this process has replaced keep their place.
    """
    _open_closed_descriptors()
    sys.stdout = _prepare(sys.stdout, sys.__stdout__, 1)
    sys.stderr = _prepare(sys.stderr, sys.__stderr__, 2)


def keep_stdout_for_python() -> None:
    """Discard what libraries write to standard output behind Python's back; what Python prints is shown."""
    sys.stdout.flush()
    shown = os.dup(1)
    discard_output(1)
    if sys.stdout is sys.__stdout__ or isinstance(getattr(sys.stdout.buffer, "raw", None), _Output):
        sys.stdout = _prepare(None, None, shown)


class _Output(io.FileIO):
    """The descriptor of a standard stream, which becomes the null device when it cannot be written."""

    def write(self, data: object) -> int:
        """Write bytes, unless their reader has left.

        Raises:
            OSError: Standard output cannot be written for another reason; it is raised once.
        """
        try:
            return super().write(data)  # type: ignore[arg-type]  # any buffer
        except OSError as error:
            discard_output(self.fileno())
            if self.fileno() != 2 and error.errno not in READER_LEFT:
                raise OSError(error.errno, error.strerror, "standard output") from error
            return memoryview(data).nbytes  # type: ignore[arg-type]


def discard_output(descriptor: int) -> None:
    """Connect a descriptor, and what child processes inherit of it, to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def _open_closed_descriptors() -> None:
    """Open the null device where a descriptor is closed: another file would get its number otherwise."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one


def _prepare(stream: TextIO | None, original: TextIO | None, descriptor: int) -> TextIO:
    """Return a stream that never fails for a reader who has left."""
    if stream is not None and stream is not original:  # another one is meant to be written, as in a notebook
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        return stream
    if stream is not None:
        stream.flush()
    raw = _Output(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors="backslashreplace",  # names of files need not be text of any encoding
        line_buffering=descriptor == 2 or raw.isatty(),
        write_through=bool(getattr(stream, "write_through", False)),
    )
