"""Run a command of Voxlift in a child process and report how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Timer
from typing import TextIO

from voxlift.app.progress import pulse
from voxlift.app.runtime.exit_status import CRASH, INTERRUPTED, TIMED_OUT
from voxlift.app.runtime.failures import PARENT


def python_module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in a new Python process.

    `-P` keeps the working directory off the import path, where a user may have modules of any name.

    Args:
        name: Full name, such as `voxlift.app.cli.train`.
        arguments: Of the module.
    """
    return [sys.executable, "-P", "-m", name, *arguments]


def run_child(
    command: Sequence[str],
    *,
    descriptors: Sequence[int] = (),
    log: Path | None = None,
    seconds: float | None = None,
    environment: Mapping[str, str] | None = None,
    heading: str = "",
    dies_with_parent: bool = False,
) -> tuple[int, str]:
    """Run a command and return its exit status, with the reason where that is not 0.

    Args:
        command: See `python_module`.
        descriptors: Open files that the child inherits.
        log: File for the child's output; None shows it.
        seconds: Time limit after which the child is killed; None sets none.
        environment: Variables of the child besides those of this process.
        heading: First line of the child's output in `log`, which keeps what it holds then; empty: none.
        dies_with_parent: Whether the child is killed when this process is; one of our commands, on Linux.

    Returns:
        The exit status and, unless it is 0, the last line of stderr or the signal.

    Raises:
        KeyboardInterrupt: The child was interrupted.
    """
    last_line = ""
    variables = {**os.environ, **(environment or {})}
    if dies_with_parent:
        variables[PARENT] = str(os.getpid())
    with ExitStack() as stack:
        file = stack.enter_context(_open_log(log, heading)) if log else None
        child = stack.enter_context(
            subprocess.Popen(  # noqa: S603 - our own module, no shell
                command,
                stdout=file,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                pass_fds=tuple(descriptors),
                env=variables,
            )
        )
        if log is None:
            stack.enter_context(pulse.silenced())  # the child prints here, and keeps a pulse of its own
        was_killed = stack.enter_context(_time_limit(child, seconds))
        for line in child.stderr or ():
            (file or sys.stderr).write(line)
            last_line = line.strip() or last_line
        child.wait()
    if was_killed.is_set():
        return TIMED_OUT, f"no end within {seconds:g} s"
    status = child.returncode
    if status in {INTERRUPTED, -signal.SIGINT}:
        raise KeyboardInterrupt
    if status < 0:
        hint = " (out of memory?)" if -status == signal.SIGKILL else ""
        return CRASH, f"ended by {signal.Signals(-status).name}{hint}"
    return status, last_line.removeprefix("error: ") if status else ""


def _open_log(log: Path, heading: str) -> TextIO:
    file = log.open("a" if heading else "w", encoding="utf-8")
    if heading:
        file.write(f"{heading}\n")
        file.flush()  # the child writes to the same file
    return file


@contextmanager
def _time_limit(child: subprocess.Popen[str], seconds: float | None) -> Iterator[Event]:
    """Kill a child that runs for longer than `seconds`; the event is set if that happened."""
    was_killed = Event()

    def kill() -> None:
        was_killed.set()
        child.kill()

    timer = Timer(seconds or 0, kill)
    if seconds is not None:
        timer.start()
    try:
        yield was_killed
    finally:
        timer.cancel()
