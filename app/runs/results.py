"""Results of a run: history, scores and temperature, read from its folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from voxlift.app.config import EvaluationSettings, SettingsError
from voxlift.app.errors import shorten
from voxlift.app.evaluation.calibration import explain_no_temperature, fit_temperature
from voxlift.app.evaluation.scores import Predictions
from voxlift.app.files import read_json, read_rows
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.tasks.base import ScoredRows, Task, find_task, task_of
from voxlift.data_pipelines.tables.manifest import Record

log = logging.getLogger("voxlift")

FIRST_EPOCH = 1  # `first_epoch` of metrics.json; runs of versions that counted from 0 lack it


def find_best_epoch(cost: Mapping[str, Any]) -> int | None:
    """Return the best epoch, counted from 1, of a block `cost` of metrics.json; None where there is none."""
    best = cost.get("best_epoch")
    if not isinstance(best, int | float):
        return None
    number = int(best) + FIRST_EPOCH - int(cost.get("first_epoch", 0))
    return number if number >= FIRST_EPOCH else None


def count_epochs(cost: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block `cost` of metrics.json with the best epoch counted from 1, and without `first_epoch`."""
    best = find_best_epoch(cost)
    known = {key: value for key, value in cost.items() if key not in ("best_epoch", "first_epoch")}
    return known if best is None else {**known, "best_epoch": best}


def read_history(run: RunFolder) -> list[dict[str, str]]:
    """Return one row per epoch, all values as text; no rows for a run without epochs."""
    return read_rows(run.history) if run.history.exists() else []


def read_scores(run: RunFolder, *, split: str, evaluation: EvaluationSettings | None = None) -> Any:  # noqa: ANN401 - the task's own class
    """Return the scores of a finished run on one split, with the threshold chosen on its validation.

    Args:
        run: The folder.
        split: `train`, `val` or `test`.
        evaluation: Which metrics they have; None: those of the run.

    Raises:
        SettingsError: A value in the files is damaged.
    """
    settings = load_settings(run)
    task = task_of(settings if evaluation is None else replace(settings, evaluation=evaluation))
    try:
        rows = read_rows(run.predictions)
        scores = scores_from_rows(rows, task.names(settings.data), split=split, task=task)
        return task.decide(scores, read_json(run.metrics))
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, SettingsError):  # it names the file already
            raise
        raise SettingsError(
            f"{run.predictions} or {run.metrics.name} is damaged: {shorten(error)}. Restore it, or train the"
            " run again."
        ) from error


def read_ablation(run: RunFolder) -> dict[str, Any]:
    """Return the scores of `ablation.csv` by what is blanked; nothing for a run of images alone.

    Raises:
        SettingsError: A value in the files is damaged.
    """
    if not run.ablation.exists():
        return {}
    settings, rows = load_settings(run), read_rows(run.ablation)
    task, metrics = task_of(settings), read_json(run.metrics)
    try:
        return {
            name: task.decide(
                scores_from_rows(rows, task.names(settings.data), split=name, task=task), metrics
            )
            for name in dict.fromkeys(row["split"] for row in rows)
        }
    except (ValueError, TypeError, KeyError) as error:
        raise SettingsError(
            f"{run.ablation} is damaged: {shorten(error)}. Restore it, or train the run again."
        ) from error


def read_temperature(run: RunFolder) -> float:
    """Return the temperature fitted on the validation of a finished run; 1 where none could be fitted.

    Only classes have one.
    """
    metrics = read_json(run.metrics)
    calibration = metrics.get("calibration")
    if "task" in metrics:
        return 1.0
    if calibration is None:  # a run of a version that saved none
        fitted = fit_temperature(read_scores(run, split="val"))
        calibration = {"temperature": fitted.value, "at_bound": fitted.at_bound}
    if calibration["at_bound"]:
        log.info(
            "%s: no temperature could be fitted, since %s; the calibrated probabilities equal the "
            "uncalibrated ones.",
            run.path,
            explain_no_temperature(read_scores(run, split="val")),
        )
    return float(calibration["temperature"])


CLASSES = find_task("classes")


def prediction_rows(scores: Mapping[str, Predictions], task: Task = CLASSES) -> list[dict[str, Any]]:
    """Return the rows of `predictions.csv`: subject, image, split, then the task's labels and predictions."""
    return [
        {"subject": subject, "image": image, "split": split, **cells}
        for split, own in scores.items()
        for subject, image, cells in zip(own.subjects, own.items, task.prediction_cells(own), strict=True)
    ]


def scores_from_rows(
    rows: Sequence[Mapping[str, str]], names: tuple[str, ...], *, split: str, task: Task = CLASSES
) -> Any:  # noqa: ANN401 - the task's own class
    """Return the scores of one split from rows of `predictions.csv`, the inverse of `prediction_rows`.

    Args:
        rows: Of all splits.
        names: Of the run's outputs.
        split: `train`, `val` or `test`.
        task: Of the run.
    """
    own = [row for row in rows if row["split"] == split]
    scored = ScoredRows(
        subjects=tuple(row["subject"] for row in own),
        items=tuple(row["image"] for row in own),
        labels=_read_labels(own, task, names),
        training=_read_labels([row for row in rows if row["split"] == "train"], task, names),
    )
    return task.build_scores(scored, task.read_predictions(own, names), names)


def _read_labels(rows: Sequence[Mapping[str, str]], task: Task, names: tuple[str, ...]) -> NDArray[Any]:
    labels = [task.read_label(row, names) for row in rows]
    return task.labels([Record("", (), label, None, 0, targets) for label, targets in labels])
