"""Measure after a training whether the site can be told from the model's score or features."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.evaluation.scores import Floats, Predictions, Scores
from voxlift.app.evaluation.sites import FOLDS, select_sites, tell_sites
from voxlift.app.inference.scores import predict_outputs
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.subjects import read_subjects

log = logging.getLogger("voxlift")


def evaluate_run_sites(
    run: RunFolder,
    settings: TrainSettings,
    *,
    cohort: Cohort,
    scores: Mapping[str, Predictions],
    network: Any | None,  # noqa: ANN401 - untyped Keras
) -> dict[str, Any]:
    """Return `sites` of metrics.json; nothing without `splits.by` or `splits.leave_out`, or with one site.

    Volumes of one split are compared with each other, since a model scores those that it was trained on
    otherwise than new ones: the first of test, val and train that has two sites with enough subjects.

    Args:
        run: With `subjects.csv`.
        settings: Of the run.
        cohort: Whose volumes were scored.
        scores: By split.
        network: Of the run; None for a model without one, which has no features.
    """
    column = settings.splits.leave_out or settings.splits.by
    if column is None:
        return {}
    try:
        columns = read_subjects(run, settings)
        for split in (name for name in ("test", "val", "train") if name in scores):
            own = scores[split]
            sites = [str(value) for value in columns.read(column, own.items)]
            kept = select_sites(sites, own.subjects, least=max(FOLDS, settings.evaluation.min_subjects))
            if kept.any():
                break
        else:
            return {}
    except SettingsError as error:  # a finished training is worth more than its sites
        log.warning("Sites are not compared: %s", error)
        return {}
    chosen = np.flatnonzero(kept)
    labels = own.labels if isinstance(own, Scores) else np.zeros(len(own), np.int64)
    names, subjects = [sites[row] for row in chosen], [own.subjects[row] for row in chosen]
    found: dict[str, Any] = {"column": column, "split": split, "sites": sorted(set(names))}
    found["score"] = tell_sites(_score_features(own)[chosen], names, subjects, labels[chosen])
    features = None if network is None else _extract_features(network, cohort, split, settings)
    if features is not None:
        found["features"] = tell_sites(features[chosen], names, subjects, labels[chosen])
    return {"sites": found}


def describe_sites(metrics: Mapping[str, Any]) -> list[str]:
    """Return a sentence on each thing that the site can be told from; a warning where it can."""
    found = metrics.get("sites")
    if found is None:
        return []
    texts, told = [], []
    for name, title in (("score", "the score"), ("features", "the features of the network")):
        one = found.get(name)
        if one and one["auc"] is not None and one["interval"]:
            low, high = one["interval"]
            texts.append(f"{title}: ROC AUC {one['auc']:.3f} [{low:.3f}, {high:.3f}]")
            told += [title] if one["can_be_told"] else []
    if not texts:
        return []
    start = f"Warning: the site can be told from {' and '.join(told)}" if told else "No site could be told"
    how = (
        f"{found['column']}, {len(found['sites'])} sites, {found['split']} subjects of the same label; "
        "linear model, cross-validated"
    )
    return [f"{start} ({how}): {'; '.join(texts)}; 0.5 is chance."]


def _score_features(scores: Predictions) -> Floats:
    values = np.asarray(getattr(scores, scores.predicted), np.float64).reshape(len(scores), -1)
    if scores.predicted != "probabilities":
        return values
    return np.asarray(np.log(np.clip(values, 1e-6, 1)) - np.log(np.clip(1 - values, 1e-6, 1)), np.float64)


def _extract_features(
    network: Any,  # noqa: ANN401 - untyped Keras
    cohort: Cohort,
    split: str,
    settings: TrainSettings,
) -> Floats | None:
    """Return the features [N, F] of a split's volumes; None for a network without a plain head."""
    from voxlift.models.features import build_feature_extractor

    try:
        extractor = build_feature_extractor(network)
    except ValueError as error:
        log.info("Sites are not compared by features: %s", error)
        return None
    outputs = predict_outputs(extractor, cohort.prepared(split), batch_size=settings.trainer.batch_size)
    return np.asarray(outputs, np.float64)
