"""A command's last words where it can say none itself: it runs in a fork, and this process waits for its end.

Memory that runs out may end an engine in the midst of a kernel (SIGSEGV, SIGABRT), or the kernel ends the
whole process (SIGKILL): nothing in it can speak then. The fork is made before anything heavy is imported, so
that it costs milliseconds; terminal, process group and open files stay the same for both.
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
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from voxlift.app.runtime.exit_status import CRASH, USER_ERROR

PASSED_ON = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})
VMSTAT = Path("/proc/vmstat")
MOMENT = 2.0  # seconds
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


@dataclass
class _Ear:
    """Where the supervising process listens; None where there is none."""

    descriptor: int | None = None


_EAR = _Ear()


@dataclass(frozen=True)
class End:
    """How the supervised process ended, by which signal, and what is known about it.

    Attributes:
        number: the signal's.
        peak_bytes: the most memory that it held.
        is_memory: whether the kernel has ended a process for lack of memory meanwhile.
        facts: what it told before: `doing` (with which settings), `way_out` and `way_on`.
    """

    number: int
    peak_bytes: int
    is_memory: bool
    facts: Mapping[str, str]

    @property
    def status(self) -> int:
        """The exit status that stands for it."""
        if self.number == signal.SIGKILL and self.is_memory:
            return USER_ERROR  # less can be asked for
        return CRASH if self.number in CRASHES else 128 + self.number

    def spoken(self) -> str:
        """What happened, and the way out and on, where there is one."""
        name, held = signal.Signals(self.number).name, f"it held {self.peak_bytes / 1e9:.1f} GB"
        doing = f" with {self.facts['doing']}" if "doing" in self.facts else ""
        if self.number in CRASHES:
            said = f"The engine broke down{doing} ({name}; {held}): most often for lack of memory."
        elif self.number != signal.SIGKILL:
            said = f"Ended from outside by {name}."
        elif self.is_memory:
            said = f"Out of memory{doing}: the system ended the process (SIGKILL; {held})."
        else:
            said = f"Killed from outside{doing} (SIGKILL; {held}), or for lack of memory."
        is_asked = self.number in PASSED_ON
        ways = ("way_on",) if is_asked else ("way_out", "way_on")
        return " ".join([said, *(self.facts[way] for way in ways if way in self.facts)])


def hand_over() -> None:
    """Go on in a fork; the process that was there before waits, and leaves with the fork's exit status.

    Nothing happens where a debugger is at work, `debug=true` is asked for, or the system has no such means.
    """
    if not _is_possible():
        return
    watched = {*PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    sys.stdout.flush()
    sys.stderr.flush()
    (hearing, speaking), supervisor, kills = os.pipe(), os.getpid(), _memory_kills()
    child = os.fork()
    if child == 0:
        os.close(hearing)
        _EAR.descriptor = speaking
        _end_with(supervisor)
        _interrupt_once()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    os.close(speaking)
    status, peak_bytes = _wait(child, watched)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        end = End(-code, peak_bytes, is_memory=_memory_kills() > kills, facts=_hear(hearing))
        sys.stderr.write(f"\nerror: {end.spoken()}\n")
        code = end.status
    sys.stderr.flush()
    os._exit(code)  # what is registered for the end is the fork's to do


def tell(**facts: str) -> None:
    """Let the supervising process know what to say, should this one end without a word."""
    if _EAR.descriptor is not None:
        os.write(_EAR.descriptor, json.dumps(facts).encode() + b"\n")


def _is_possible() -> bool:
    return (
        sys.platform == "linux"
        and threading.active_count() == 1
        and "tensorflow" not in sys.modules
        and sys.gettrace() is None
        and not any(argument.lstrip("+") == "debug=true" for argument in sys.argv[1:])
    )


def _end_with(supervisor: int) -> None:
    """Let this process be killed when the one that waits for it is: nobody else would know of it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # killed before
        os._exit(CRASH)


def _interrupt_once() -> None:
    """Let SIGINT interrupt once in a while: who sends it to all processes makes it come here twice."""
    last = -MOMENT

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        since, last = last, time.monotonic()
        if last - since >= MOMENT:
            signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


def _wait(child: int, watched: set[signal.Signals]) -> tuple[int, int]:
    """The child's wait status, and the most bytes that it held; signals are passed on until then."""
    while True:
        found = signal.sigwaitinfo(watched)
        if found.si_signo == signal.SIGCHLD:
            ended, status, usage = os.wait4(child, os.WNOHANG)
            if ended:
                return status, usage.ru_maxrss * 1024
        elif found.si_code <= 0:  # sent by a process; what the terminal sends, both have got
            os.kill(child, found.si_signo)


def _hear(descriptor: int) -> dict[str, str]:
    """All that the child told, later facts in the place of earlier ones."""
    os.set_blocking(descriptor, False)  # another process may hold the other end open
    try:
        lines = os.read(descriptor, 65536).decode().splitlines()
    except BlockingIOError:
        return {}
    return {name: value for line in lines for name, value in json.loads(line).items()}


def _memory_kills(vmstat: Path = VMSTAT) -> int:
    """How many processes the kernel has ended for lack of memory since its start; 0 where it does not say."""
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
