"""Results of a run: history, scores and temperature, read from its folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxlift.app.config import SettingsError
from voxlift.app.evaluation.calibration import fit_temperature
from voxlift.app.evaluation.scores import Scores, with_threshold
from voxlift.app.files import read_json, read_rows
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder

log = logging.getLogger("voxlift")


def read_history(run: RunFolder) -> list[dict[str, str]]:
    """Return one row per epoch, all values as text; no rows for a run without epochs."""
    return read_rows(run.history) if run.history.exists() else []


def read_scores(run: RunFolder, *, split: str) -> Scores:
    """Return the scores of a finished run on one split, with the threshold chosen on its validation.

    Raises:
        SettingsError: A value in the files is damaged.
    """
    classes = tuple(load_settings(run).data.classes)
    try:
        scores = scores_from_rows(read_rows(run.predictions), classes, split=split)
        threshold = read_json(run.metrics)["threshold"]
        return scores if threshold is None else with_threshold(scores, float(threshold))
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, SettingsError):  # it names the file already
            raise
        files = f"{run.predictions} or {run.metrics.name}"
        raise SettingsError(f"{files} is damaged: {error}. Restore it, or train the run again.") from error


def read_temperature(run: RunFolder) -> float:
    """Return the temperature fitted on the validation of a finished run; 1 where none could be fitted."""
    calibration = read_json(run.metrics).get("calibration")
    if calibration is None:  # a run of a version that saved none
        fitted = fit_temperature(read_scores(run, split="val"))
        calibration = {"temperature": fitted.value, "at_bound": fitted.at_bound}
    if calibration["at_bound"]:
        log.info(
            "%s: no temperature could be fitted, since validation is perfectly separated or uninformative; "
            "the calibrated probabilities equal the uncalibrated ones.",
            run.path,
        )
    return float(calibration["temperature"])


def prediction_rows(scores: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """Return the rows of `predictions.csv`: subject, image, split, label, and a probability per class."""
    rows = []
    for split, own in scores.items():
        columns = [f"p_{name}" for name in own.classes]
        for subject, image, label, p in zip(
            own.subjects, own.items, own.labels, own.probabilities, strict=True
        ):
            row = {"subject": subject, "image": image, "split": split, "label": own.classes[label]}
            rows.append(row | dict(zip(columns, map(float, p), strict=True)))
    return rows


def scores_from_rows(rows: Sequence[Mapping[str, str]], classes: tuple[str, ...], *, split: str) -> Scores:
    """Return the scores of one split from rows of `predictions.csv`, the inverse of `prediction_rows`."""
    own = [row for row in rows if row["split"] == split]
    probabilities = np.array([[float(row[f"p_{name}"]) for name in classes] for row in own], np.float64)
    return Scores(
        subjects=tuple(row["subject"] for row in own),
        labels=np.array([classes.index(row["label"]) for row in own], np.int64),
        probabilities=probabilities.reshape(-1, len(classes)),
        classes=classes,
        items=tuple(row["image"] for row in own),
    )
