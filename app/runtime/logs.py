"""Send log messages to the terminal and to the log file of a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path

from voxlift.app.progress import is_brief, print_line

log = logging.getLogger("voxlift")

MACHINE = "voxlift.machine"  # logger of what is the same for all trainings of a process or a comparison
ENDED = logging.CRITICAL + 1


@contextmanager
def logging_to_file() -> Iterator[Callable[[Path], None]]:
    """Log to the terminal, and to a file once it is named; earlier messages are written to it too.

    A refused run leaves no folder behind, so the file can only be named after all checks.

    Yields:
        The function that names the file.
    """
    memory = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL, flushOnClose=False)
    handlers: list[logging.Handler] = [TerminalHandler(), memory]

    def attach(path: Path) -> None:
        file = LogFile(path, encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        memory.setTarget(file)
        memory.flush()
        log.removeHandler(memory)
        log.addHandler(file)
        handlers.append(file)

    before = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield attach
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
        log.setLevel(before[0])
        log.propagate = before[1]


class LogFile(logging.FileHandler):
    """A log file whose disk may be full: it then ends, and the terminal still has every message."""

    def handleError(self, _: logging.LogRecord) -> None:  # noqa: N802 - the name in the base class
        """Print once that the file has ended, instead of a traceback for each message."""
        if self.level != ENDED:
            self.setLevel(ENDED)
            print_line(f"{self.baseFilename} cannot be written ({sys.exc_info()[1]}); the log ends there.")

    def close(self) -> None:
        """Close the file; what a full disk did not take is lost."""
        with suppress(OSError):
            super().close()


class TerminalHandler(logging.Handler):
    """A log handler that prints messages above a running progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message; one about the machine not where each of several trainings would repeat it."""
        if not (is_brief() and record.name == MACHINE):
            print_line(self.format(record))
