"""How a measurement without an answer ended: for want of memory, out of time, or for another reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from voxlift.app.errors import SettingsError
from voxlift.app.process.statuses import TIMED_OUT

# Words of Python, the C++ library, TensorFlow and the system; a crash right after them has the same cause.
MEMORY_WORDS = re.compile(
    r"MemoryError|std::bad_alloc|resource_?\s?exhausted|OOM when allocating|out of memory|"
    r"cannot allocate memory",
    re.IGNORECASE,
)
KILLED = "ended by SIGKILL"  # what the kernel does to a process when memory runs out; it leaves no words


@dataclass(frozen=True)
class Ending:
    """A child process that left no answer.

    Attributes:
        status: Its exit status, as `run_child` gives it.
        reason: Its last words, or the signal that ended it.
        log: What it said.
    """

    status: int
    reason: str
    log: Path

    @property
    def is_memory(self) -> bool:
        """Whether it ended for want of memory."""
        if self.status == TIMED_OUT:
            return False
        if self.reason.startswith(KILLED):
            return True
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return bool(MEMORY_WORDS.search(text))

    @property
    def sentence(self) -> str:
        """Its last words; where a signal left none, the last line of the log beside it."""
        if self.status == TIMED_OUT or not self.reason.startswith("ended by"):
            return self.reason
        lines = (
            self.log.read_text(encoding="utf-8", errors="replace").split("\n") if self.log.exists() else []
        )
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{self.reason}, after saying: {last[:200]}" if last else self.reason


class MeasurementError(SettingsError):
    """A measurement has no answer.

    Attributes:
        reason: Why, in the child's words.
    """

    def __init__(self, name: str, ending: Ending) -> None:
        super().__init__(f"measuring {name} failed: {ending.sentence} ({ending.log} has it all)")
        self.reason = ending.sentence
