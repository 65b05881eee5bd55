"""Measurements in child processes: asked once, answered from their folder ever after."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from voxlift.app.files import read_json, write_json
from voxlift.app.runs.configuration import load_settings, save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.settings import TrainSettings
from voxlift.app.settings.changes import list_changes
from voxlift.app.studies.endings import Ending, MeasurementError
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.trials.child import run_child

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
