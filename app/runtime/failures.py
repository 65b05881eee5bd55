"""Report how a command ended: out-of-memory, full disk and interrupts as messages that say what to do.

Where memory runs out, TensorFlow may crash inside a kernel (SIGSEGV, SIGABRT), or the operating system may
kill the process (SIGKILL): no Python code in it can print a message then. A command therefore runs in a
forked process, and the other one reports how it ended. The fork is made before heavy imports, so it costs
milliseconds; both processes share terminal, process group and open files.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from voxlift.app.config import TrainerSettings
from voxlift.app.config.overrides import format_override
from voxlift.app.errors import UserError
from voxlift.app.runtime.exit_status import CRASH, LOST, USER_ERROR

log = logging.getLogger("voxlift")

# Words of Python, numpy, the C++ library, TensorFlow, JAX and the operating system; compared without case.
OUT_OF_MEMORY_WORDS = (
    "memoryerror",
    "std::bad_alloc",
    "resourceexhausted",
    "resource_exhausted",
    "resource exhausted",
    "oom when allocating",
    "out of memory",
    "cannot allocate memory",
    "unable to allocate",
)
DISK_FULL_WORDS = ("No space left on device", "Disk quota exceeded")
REPEAT = "Then start the same command again."
FILE_LIMIT_WORDS = ("File too large",)
FORWARDED = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})
VMSTAT = Path("/proc/vmstat")
REPEAT_SECONDS = 2.0  # a second SIGINT within this time is the same interrupt
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
PARENT = "VOXLIFT_PARENT"  # variable with the process that a command must not outlive


def is_out_of_memory(error: BaseException | str) -> bool:
    """Return whether an error, or the output of a process, reports a lack of memory.

    A full disk is no lack of memory, although TensorFlow reports both as exhausted resources.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory("ResourceExhausted: x; No space left on device")
    (True, False)
    """
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    is_memory = isinstance(error, MemoryError) or any(words in text.lower() for words in OUT_OF_MEMORY_WORDS)
    return is_memory and not is_disk_full(error)


def is_disk_full(error: BaseException | str) -> bool:
    """Return whether an error, or the output of a process, reports a full disk."""
    is_number = getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
    return is_number or any(words in str(error) for words in DISK_FULL_WORDS)


def is_file_limit(error: BaseException | str) -> bool:
    """Return whether an error, or the output of a process, reports that a file may not grow any further."""
    return getattr(error, "errno", None) == errno.EFBIG or any(
        words in str(error) for words in FILE_LIMIT_WORDS
    )


@dataclass(frozen=True)
class MemoryHint:
    """What to change where memory runs out.

    Attributes:
        setting: What decides how much memory the job needs, as the user writes it.
        fix: A sentence on what needs less.
    """

    setting: str
    fix: str


def build_training_hint(trainer: TrainerSettings) -> MemoryHint:
    """Return the hint for a training: half the batch with twice the accumulation gives the same step."""
    if trainer.batch_size == 1:
        smaller = "fewer model.filters (it was one volume at a time already)"
    else:
        half, microbatches = trainer.batch_size // 2, trainer.accumulate * 2
        smaller = (
            f"trainer.batch_size={half} trainer.accumulate={microbatches} (the same step in half the memory)"
        )
    fix = f"To need less memory, set {smaller}, or a smaller preprocess.shape."
    return MemoryHint(f"trainer.batch_size={trainer.batch_size}", fix)


def build_scoring_hint(batch_size: int) -> MemoryHint:
    """Return the hint for scoring with a finished network, `batch_size` volumes at once."""
    if batch_size == 1:
        fix = "It was one volume at a time already; CUDA_VISIBLE_DEVICES=-1 computes without a small GPU."
    else:
        fix = (
            f"The same command with batch_size={batch_size // 2} needs less memory and gives the same scores."
        )
    return MemoryHint(f"batch_size={batch_size}", fix)


def build_resume_hint(folder: Path, custom: Sequence[str] = ()) -> str:
    """Return the sentence that says how to resume the training in a run folder.

    Args:
        folder: Of the run.
        custom: Modules of the user, which a resumed training imports only where its command names them.
    """
    return f"To resume from the newest checkpoint: voxlift-train {format_resume(folder, custom)}"


def format_resume(folder: Path, custom: Sequence[str]) -> str:
    """Return the keys that resume the training in a run folder, as in `build_resume_hint`."""
    named = f" {shlex.quote(format_override('custom', list(custom)))}" if custom else ""
    return f"resume={folder}{named}"


@contextmanager
def translate_failures(hint: MemoryHint, resume: str = "") -> Iterator[None]:
    """Translate out-of-memory, full disk and interrupts inside into messages with the fix.

    The supervising process gets the same hints, for a process that crashes without a message.

    Args:
        hint: What needs less memory.
        resume: How the job can be resumed; empty where the same command does it.

    Raises:
        UserError: Memory or disk space ran out.
    """
    send_hints(setting=hint.setting, fix=hint.fix, **({"resume": resume} if resume else {}))
    try:
        yield
    except KeyboardInterrupt:
        if resume:
            log.info("Interrupted. %s", resume)
        raise
    except Exception as error:
        message = _describe_failure(error, hint)
        if message is None:
            raise
        again = "" if is_out_of_memory(error) else REPEAT
        raise UserError(f"{message} {resume or again}".rstrip()) from error


def _describe_failure(error: Exception, hint: MemoryHint) -> str | None:
    """Return what ran out and what helps; None for every other error."""
    where = getattr(error, "filename", None) or "the disk of the results"
    if is_file_limit(error):
        return (
            f"The file-size limit is reached ({where}). Finished files are unchanged. Raise it "
            "(ulimit -f), or choose a disk that takes larger files."
        )
    if is_disk_full(error):
        return f"No space left on device ({where}). Finished files are unchanged. Free some space there."
    if is_out_of_memory(error):
        return f"Out of memory with {hint.setting}. {hint.fix}"
    return None


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
