"""A command of ours in a child process: its exit status and its last words."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Timer

from voxlift.app.runtime.exit_status import CRASH, INTERRUPTED, TIMED_OUT


def run_child(
    command: Sequence[str],
    *,
    descriptors: Sequence[int] = (),
    log: Path | None = None,
    seconds: float | None = None,
) -> tuple[int, str]:
    """Run a command of ours; its exit status, and its last words where that is not 0.

    Args:
        command: a module of ours and its arguments.
        descriptors: open files that the child inherits.
        log: the file that gets its output; None shows it.
        seconds: that it may take before it is killed; None for any number.

    Raises:
        KeyboardInterrupt: the child was interrupted.
    """
    words = ""
    with ExitStack() as stack:
        file = stack.enter_context(log.open("w", encoding="utf-8")) if log else None
        child = stack.enter_context(
            subprocess.Popen(  # noqa: S603 - our own module, no shell
                command,
                stdout=file,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                pass_fds=tuple(descriptors),
            )
        )
        alarm = stack.enter_context(_kill_after(child, seconds))
        for line in child.stderr or ():
            (file or sys.stderr).write(line)
            words = line.strip() or words
        child.wait()
    if alarm.is_set():
        return TIMED_OUT, f"no end within {seconds:g} s"
    status = child.returncode
    if status in {INTERRUPTED, -signal.SIGINT}:
        raise KeyboardInterrupt
    if status < 0:
        return CRASH, _describe_signal(-status)
    return status, words.removeprefix("error: ") if status else ""


@contextmanager
def _kill_after(child: subprocess.Popen[str], seconds: float | None) -> Iterator[Event]:
    """Kill a child that runs for longer; the event says whether that was done."""
    rang = Event()

    def ring() -> None:
        rang.set()
        child.kill()

    timer = Timer(seconds or 0, ring)
    if seconds is not None:
        timer.start()
    try:
        yield rang
    finally:
        timer.cancel()


def _describe_signal(number: int) -> str:
    hint = " (out of memory?)" if number == signal.SIGKILL else ""
    return f"ended by {signal.Signals(number).name}{hint}"
