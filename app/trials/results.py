"""What the trainings of a model reached, and what they cost."""

from __future__ import annotations

from voxlift.app.evaluation.scores import Scores, with_threshold
from voxlift.app.files import read_json, read_rows
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.predictions import scores_from_rows
from voxlift.app.trials.trial import Trial


def scores_of(trial: Trial, *, split: str = "test") -> Scores:
    """The scores of one training on a split, decided at the threshold that its validation chose."""
    classes = tuple(load_settings(trial.run).data.classes)
    scores = scores_from_rows(read_rows(trial.run.predictions), classes, split=split)
    threshold = read_json(trial.run.metrics)["threshold"]
    return scores if threshold is None else with_threshold(scores, threshold)
