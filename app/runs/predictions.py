"""`predictions.csv`: a run's scores as rows, written and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxlift.app.evaluation.scores import Scores, with_threshold
from voxlift.app.files import read_json, read_rows
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder


def prediction_rows(scores: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """Rows of `predictions.csv`: subject, image, split, label, and one probability column per class."""
    return [row for split, values in scores.items() for row in _rows_of_split(split, values)]


def _rows_of_split(split: str, scores: Scores) -> list[dict[str, Any]]:
    columns = [f"p_{name}" for name in scores.classes]
    heads = zip(scores.subjects, scores.items, scores.labels, scores.probabilities, strict=True)
    return [
        {"subject": subject, "image": image, "split": split, "label": scores.classes[label]}
        | dict(zip(columns, map(float, row), strict=True))
        for subject, image, label, row in heads
    ]


def scores_from_rows(rows: Sequence[Mapping[str, str]], classes: tuple[str, ...], *, split: str) -> Scores:
    """The inverse of `prediction_rows` for one split."""
    chosen = [row for row in rows if row["split"] == split]
    return Scores(
        subjects=tuple(row["subject"] for row in chosen),
        labels=np.array([classes.index(row["label"]) for row in chosen], np.int64),
        probabilities=np.array([[float(row[f"p_{name}"]) for name in classes] for row in chosen]).reshape(
            -1, len(classes)
        ),
        classes=classes,
        items=tuple(row["image"] for row in chosen),
    )


def read_scores(run: RunFolder, *, split: str) -> Scores:
    """Return the scores of a finished run on a split, decided at the threshold that its validation chose."""
    classes = tuple(load_settings(run).data.classes)
    scores = scores_from_rows(read_rows(run.predictions), classes, split=split)
    threshold = read_json(run.metrics)["threshold"]
    return scores if threshold is None else with_threshold(scores, threshold)
