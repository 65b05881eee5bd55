"""Send log messages to the terminal and to the log file of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

from voxlift.app.progress import print_line

log = logging.getLogger("voxlift")


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
        file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
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


class TerminalHandler(logging.Handler):
    """A log handler that prints messages above a running progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        print_line(self.format(record))
