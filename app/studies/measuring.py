"""Measurements in child processes: asked once, answered from their folder ever after."""

from __future__ import annotations

import sys
from typing import Any

from app.comparison.reuse import list_changes
from app.comparison.running import run_child
from app.progress import console
from app.runs import RunFolder, load_settings, read_json, save_settings, write_json
from app.settings import SettingsError, TrainSettings
from app.studies.folder import StudyFolder

Answer = dict[str, Any]


def measure(
    name: str,
    settings: TrainSettings,
    request: Answer,
    *,
    folder: StudyFolder,
    failure: Answer | None = None,
) -> Answer:
    """The answer to a request, measured in a child process unless the folder holds it already.

    Args:
        name: Of the measurement's folder.
        settings: Of the training that is measured.
        request: `kind`, one of `app.studies.measure`, and what that kind reads.
        folder: Of the study.
        failure: What a child that ends badly is taken to say, its last words added as `reason`; None makes
            it an error.

    Raises:
        SettingsError: the child failed, and that is no answer.
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
    command = [sys.executable, "-m", "app.studies.measure", str(place.path)]
    status, reason = run_child(command, log=place.log)
    if status and failure is None:
        raise SettingsError(f"measuring {name} failed: {reason} ({place.log} has it all)")
    if status:
        write_json(answer, {**(failure or {}), "reason": reason})
    return read_json(answer)


def say(text: str) -> None:
    """One line about a measurement."""
    console.print(text, markup=False, highlight=False)


def _is_same(place: RunFolder, settings: TrainSettings, request: Answer) -> bool:
    asked = read_json(place.path / "request.json")
    return asked == request and not list_changes(load_settings(place), settings)
