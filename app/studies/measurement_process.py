"""Run a measurement in a child process once, and read its answer from the study's folder from then on."""

from __future__ import annotations

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
from voxlift.app.runtime.child import python_module, run_child
from voxlift.app.runtime.exit_status import TIMED_OUT
from voxlift.app.runtime.failures import is_out_of_memory
from voxlift.app.studies.folder import StudyFolder
from voxlift.data_pipelines.files import remove_leftovers

Answer = dict[str, Any]

KILLED = "ended by SIGKILL"  # the kernel kills a process when memory runs out, without any message


@dataclass(frozen=True)
class FailedMeasurement:
    """A child process that left no answer.

    Attributes:
        status: Exit status, see `run_child`.
        reason: Last line of its error output, or the signal that ended it.
        log: File with its output.
    """

    status: int
    reason: str
    log: Path

    @property
    def is_out_of_memory(self) -> bool:
        """Whether a lack of memory ended the process."""
        if self.status == TIMED_OUT:
            return False
        return self.reason.startswith(KILLED) or is_out_of_memory(self._read_log())

    @property
    def message(self) -> str:
        """The reason; after a signal also the last line of the log."""
        if self.status == TIMED_OUT or not self.reason.startswith("ended by"):
            return self.reason
        lines = [line.strip() for line in self._read_log().split("\n") if line.strip()]
        return f"{self.reason}; last output: {lines[-1][:200]}" if lines else self.reason

    def _read_log(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


class MeasurementError(SettingsError):
    """A measurement without an answer.

    Attributes:
        reason: Message of the child process.
    """

    def __init__(self, name: str, failed: FailedMeasurement) -> None:
        super().__init__(f"The measurement {name} failed: {failed.message} (full output in {failed.log})")
        self.reason = failed.message


def measure(
    name: str,
    settings: TrainSettings,
    request: Answer,
    *,
    folder: StudyFolder,
    interpret: Callable[[FailedMeasurement], Answer | None] | None = None,
    seconds: float | None = None,
) -> Answer:
    """Return the answer to a request, measured in a child process unless the folder holds it already.

    Args:
        name: Name of the measurement's folder.
        settings: Settings of the training that is measured.
        request: `kind`, a key of `app.studies.measurements.MEASUREMENTS`, and what that kind reads.
        folder: Folder of the study.
        interpret: Returns the answer that a failure amounts to, which is kept, or None for no answer. Without
            it every failure is an error.
        seconds: Time limit; None for no limit.

    Raises:
        MeasurementError: The child process failed without an answer.
        KeyboardInterrupt: The child process was interrupted.
    """
    place = RunFolder(folder.measurements / name)
    answer, asked = place.path / "answer.json", place.path / "request.json"
    if answer.exists() and read_json(asked) == request and not list_changes(load_settings(place), settings):
        return read_json(answer)
    place.path.mkdir(parents=True, exist_ok=True)
    answer.unlink(missing_ok=True)
    remove_leftovers(place.path)
    save_settings(settings, place)
    write_json(asked, request)
    command = python_module("voxlift.app.studies.measurements", str(place.path))
    status, reason = run_child(command, log=place.log, seconds=seconds)
    if status:
        failed = FailedMeasurement(status, reason, place.log)
        interpreted = interpret(failed) if interpret else None
        if interpreted is None:
            raise MeasurementError(name, failed)
        write_json(answer, interpreted)
    return read_json(answer)
