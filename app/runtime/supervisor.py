"""Run a command in a forked process, and report how it ended where it could not do so itself.

Where memory runs out, TensorFlow may crash inside a kernel (SIGSEGV, SIGABRT), or the operating system may
kill the process (SIGKILL): no Python code in it can print a message then. The fork is made before heavy
imports, so it costs milliseconds; both processes share terminal, process group and open files.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from voxlift.app.runtime.exit_status import CRASH, LOST, USER_ERROR

FORWARDED = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})
VMSTAT = Path("/proc/vmstat")
REPEAT_SECONDS = 2.0  # a second SIGINT within this time is the same interrupt
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
PARENT = "VOXLIFT_PARENT"  # variable with the process that a command must not outlive


def die_with_parent() -> None:
    """Let this command be killed when the process is that started it, where it asks for that (on Linux)."""
    parent = os.environ.pop(PARENT, "")
    if parent and sys.platform == "linux":
        _die_with(int(parent))


def fork_supervised() -> None:
    """Continue in a forked child; the original process waits and exits with the child's status.

    Nothing happens under a debugger, with `debug=true`, or on other systems than Linux.
    """
    if not _can_fork():
        return
    watched = {*FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    sys.stdout.flush()
    sys.stderr.flush()
    (reader, writer), supervisor, kills = os.pipe(), os.getpid(), _count_memory_kills()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _pipe.writer = writer
        _die_with(supervisor)
        _ignore_repeated_interrupts()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    os.close(writer)
    wait_status, peak_bytes = _wait(child, watched)
    status = os.waitstatus_to_exitcode(wait_status)
    if status < 0:
        is_memory = _count_memory_kills() > kills
        end = ProcessEnd(-status, peak_bytes, is_memory=is_memory, hints=_read_hints(reader))
        sys.stderr.write(f"\nerror: {end.describe()}\n")
        status = end.exit_status
    sys.stderr.flush()
    os._exit(status)  # exit handlers are run by the child


def send_hints(**hints: str) -> None:
    """Send hints to the supervising process, for its message if this process crashes.

    Args:
        hints: See `ProcessEnd`; a later hint replaces an earlier one of the same name.
    """
    _pipe.sent.update(hints)
    if _pipe.writer is not None:
        os.write(_pipe.writer, json.dumps(hints).encode() + b"\n")


def sent_hints() -> dict[str, str]:
    """Return the hints that this process has sent, for its own messages."""
    return dict(_pipe.sent)


@dataclass(frozen=True)
class ProcessEnd:
    """How a supervised process was ended by a signal.

    Attributes:
        signal_number: Of the signal.
        peak_bytes: Largest resident memory of the process.
        is_memory: Whether the kernel has killed a process for lack of memory meanwhile.
        hints: What the process sent before: `setting` (what decides its need of memory), `fix`, `resume`, and
            `lost` (why JAX aborts one of several processes).
    """

    signal_number: int
    peak_bytes: int
    is_memory: bool
    hints: Mapping[str, str]

    @property
    def exit_status(self) -> int:
        """The exit status of the command."""
        if self.signal_number == signal.SIGKILL and self.is_memory:
            return USER_ERROR  # other settings need less
        if "lost" in self.hints and self.signal_number not in FORWARDED:
            return LOST
        return CRASH if self.signal_number in CRASHES else 128 + self.signal_number

    def describe(self) -> str:
        """Return what happened, how to fix it and how to resume, as far as that is known."""
        name, memory = signal.Signals(self.signal_number).name, f"peak memory {self.peak_bytes / 1e9:.1f} GB"
        setting = f" with {self.hints['setting']}" if "setting" in self.hints else ""
        if self.signal_number == signal.SIGABRT and "lost" in self.hints:
            return " ".join(self.hints[key] for key in ("lost", "resume") if key in self.hints)
        if self.signal_number in CRASHES:
            cause = f"The process crashed{setting} ({name}; {memory}), most often for lack of memory."
        elif self.signal_number != signal.SIGKILL:
            cause = f"Ended from outside by {name}."
        elif self.is_memory:
            cause = f"Out of memory{setting}: the system ended the process ({name}; {memory})."
        else:
            cause = f"Killed from outside{setting} ({name}; {memory}), or for lack of memory."
        wanted = ("resume",) if self.signal_number in FORWARDED else ("fix", "resume")
        return " ".join([cause, *(self.hints[key] for key in wanted if key in self.hints)])


@dataclass
class _Pipe:
    """The writing end of the pipe to the supervising process (None without one), and what was sent."""

    writer: int | None = None
    sent: dict[str, str] = field(default_factory=dict)


_pipe = _Pipe()


def _can_fork() -> bool:
    return (
        sys.platform == "linux"
        and threading.active_count() == 1
        and "tensorflow" not in sys.modules
        and sys.gettrace() is None
        and not any(argument.lstrip("+") == "debug=true" for argument in sys.argv[1:])
    )


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent is killed: nobody else would notice."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # killed before
        os._exit(CRASH)


def _ignore_repeated_interrupts() -> None:
    """Ignore a second SIGINT soon after the first: one that is sent to both processes arrives here twice."""
    last = -REPEAT_SECONDS

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        previous, last = last, time.monotonic()
        if last - previous >= REPEAT_SECONDS:
            signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


def _wait(child: int, watched: set[signal.Signals]) -> tuple[int, int]:
    """Return the child's wait status and peak memory in bytes; forward signals until it ends."""
    while True:
        received = signal.sigwaitinfo(watched)
        if received.si_signo == signal.SIGCHLD:
            ended, status, usage = os.wait4(child, os.WNOHANG)
            if ended:
                return status, usage.ru_maxrss * 1024
        elif received.si_code <= 0:  # sent by a process; what the terminal sends reaches both
            os.kill(child, received.si_signo)


def _read_hints(reader: int) -> dict[str, str]:
    os.set_blocking(reader, False)  # another process may hold the other end open
    try:
        lines = os.read(reader, 65536).decode().splitlines()
    except BlockingIOError:
        return {}
    return {name: value for line in lines for name, value in json.loads(line).items()}


def _count_memory_kills(vmstat: Path = VMSTAT) -> int:
    """Return how many processes the kernel has killed for lack of memory since its start; 0 if unknown."""
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
