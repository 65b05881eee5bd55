"""Measurements in child processes: asked once, answered from their folder ever after."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlift.app.config import TrainSettings
from voxlift.app.config.overrides import list_changes
from voxlift.app.errors import SettingsError
from voxlift.app.files import read_json, write_json
from voxlift.app.runs.configuration import load_settings, save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.child import run_child
from voxlift.app.runtime.exit_status import TIMED_OUT
from voxlift.app.studies.folder import StudyFolder

Answer = dict[str, Any]


def measure(
    name: str,
    settings: TrainSettings,
    request: Answer,
    *,
    folder: StudyFolder,
    judge: Callable[[Ending], Answer | None] | None = None,
    seconds: float | None = None,
) -> Answer:
    """The answer to a request, measured in a child process unless the folder holds it already.

    Args:
        name: Of the measurement's folder.
        settings: Of the training that is measured.
        request: `kind`, one of `app.studies.measure`, and what that kind reads.
        folder: Of the study.
        judge: What a child that ended without an answer is taken to say, and to be remembered; None makes
            it an error.
        seconds: That the child may take; None for any number.

    Raises:
        MeasurementError: the child failed, and that is no answer.
        KeyboardInterrupt: the child was interrupted.
    """
    place = RunFolder(folder.measurements / name)
    answer = place.path / "answer.json"
    if answer.exists() and _is_same(place, settings, request):
        return read_json(answer)
    place.path.mkdir(parents=True, exist_ok=True)
    answer.unlink(missing_ok=True)
    save_settings(settings, place)
    write_json(place.path / "request.json", request)
    command = [sys.executable, "-m", "voxlift.app.studies.measure", str(place.path)]
    status, reason = run_child(command, log=place.log, seconds=seconds)
    if status:
        ending = Ending(status, reason, place.log)
        judged = judge(ending) if judge else None
        if judged is None:
            raise MeasurementError(name, ending)
        write_json(answer, judged)
    return read_json(answer)


def _is_same(place: RunFolder, settings: TrainSettings, request: Answer) -> bool:
    asked = read_json(place.path / "request.json")
    return asked == request and not list_changes(load_settings(place), settings)


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
