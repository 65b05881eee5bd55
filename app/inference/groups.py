"""Groups of scored volumes: their subgroups and sites, and the groups and names of the cases of a page."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from voxlift.app.config import EvaluationSettings, SettingsError, TrainSettings
from voxlift.app.config.checks import split_request
from voxlift.app.data.cohort import Cohort
from voxlift.app.evaluation.scores import Fits, Floats, Predictions, Scores
from voxlift.app.evaluation.sites import FOLDS, predict_sites, select_sites
from voxlift.app.evaluation.subgroups import adjust_tests, evaluate_grouping
from voxlift.app.evaluation.table_one import Grouping, cut_groups
from voxlift.app.inference.scores import predict_outputs
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.subjects import SubjectColumns, read_subjects, refuse_cut_text
from voxlift.app.tasks.base import task_of
from voxlift.data_pipelines.files import IMAGE_SUFFIXES
from voxlift.data_pipelines.tables.manifest import is_subject_column
from voxlift.data_pipelines.tables.reader import is_missing

log = logging.getLogger("voxlift")

PREDICTED_FROM = {"score": "the score", "features": "the features of the network"}  # what may reveal the site


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
    found["score"] = predict_sites(_score_features(own)[chosen], names, subjects, labels[chosen])
    features = None if network is None else _extract_features(network, cohort, split, settings)
    if features is not None:
        found["features"] = predict_sites(features[chosen], names, subjects, labels[chosen])
    return {"sites": found}


def describe_sites(metrics: Mapping[str, Any]) -> list[str]:
    """Return a sentence with the AUC of the site by score and by features; a warning if it beats chance."""
    found = metrics.get("sites")
    if found is None:
        return []
    texts, predicting = [], []
    for name, title in PREDICTED_FROM.items():
        one = found.get(name)
        if one and one["auc"] is not None and one["interval"]:
            low, high = one["interval"]
            texts.append(f"{title}: ROC AUC {one['auc']:.3f} [{low:.3f}, {high:.3f}]")
            predicting += [title] if one["can_be_told"] else []
    if not texts:
        return []
    start = "No site could be told"
    if predicting:
        start = f"Warning: the site can be told from {' and '.join(predicting)}"
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


def evaluate_subgroups(
    fits: Fits,
    columns: SubjectColumns,
    evaluation: EvaluationSettings,
) -> dict[str, Any]:
    """Return the figures of each group for each entry of `evaluation.by`, and tests of their differences.

    Args:
        fits: Predictions of one model, one per fold and seed, with image cells as items.
        columns: Of the volumes.
        evaluation: `by`, `quantiles` and `min_subjects`.

    Returns:
        Entry to `groups` and `tests`, see `evaluate_grouping`; p-values corrected over all entries.

    Raises:
        SettingsError: There is no such column.
    """
    found = {}
    for request in evaluation.by:
        groupings = build_groupings(request, fits, columns, quantiles=evaluation.quantiles)
        found[request] = evaluate_grouping(fits, groupings, min_subjects=evaluation.min_subjects)
    adjust_tests(found)
    return found


def evaluate_run_subgroups(
    run: RunFolder, settings: TrainSettings, scores: Mapping[str, Predictions], metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `subgroups` of metrics.json, of the test subjects (without any, of validation); else nothing.

    Args:
        run: With `subjects.csv`.
        settings: Of the run; without `evaluation.by` there are no groups.
        scores: By split.
        metrics: Of the run, with its thresholds.
    """
    evaluation = add_site(settings.evaluation, settings)
    if not evaluation.by:
        return {}
    decided = task_of(settings).decide(scores["test" if "test" in scores else "val"], metrics)
    try:
        columns = read_subjects(run, settings)
        return {"subgroups": evaluate_subgroups([decided], columns, evaluation)}
    except SettingsError as error:  # a finished training is worth more than its groups
        log.warning("No subgroups: %s", error)
        return {}


def evaluate_model_subgroups(
    run: RunFolder, models: Mapping[str, Fits], evaluation: EvaluationSettings
) -> dict[str, Any]:
    """Return the subgroups of each model of a comparison, scored on the test subjects; else nothing.

    Args:
        run: One of its runs, whose table names all subjects.
        models: Name to predictions, one per fold and seed.
        evaluation: With `by`.
    """
    settings = load_settings(run)
    evaluation = add_site(evaluation, settings)
    if not evaluation.by:
        return {}
    columns = read_subjects(run, settings)
    return {name: evaluate_subgroups(fits, columns, evaluation) for name, fits in models.items()}


def find_case_groups(
    run: RunFolder,
    settings: TrainSettings,
    scores: Predictions,
    columns: SubjectColumns | None = None,
) -> dict[str, dict[str, str]]:
    """Return for each volume, by its name in the scores, its group in each column of `evaluation.by`.

    Args:
        run: With `subjects.csv`.
        settings: With `evaluation.by`; without it there are no groups.
        scores: Of the volumes.
        columns: Of the volumes; None: those of the run.
    """
    if not settings.evaluation.by:
        return {}
    found: dict[str, dict[str, str]] = {item: {} for item in scores.items}
    try:
        known = read_subjects(run, settings) if columns is None else columns
        for request in settings.evaluation.by:
            grouping = build_groupings(request, [scores], known, quantiles=settings.evaluation.quantiles)[0]
            for item, code in zip(scores.items, grouping.codes, strict=True):
                found[item][grouping.column] = grouping.names[code]
    except SettingsError:  # `evaluate_run_subgroups` has logged it
        return {}
    return found


def find_case_names(
    run: RunFolder, settings: TrainSettings, columns: SubjectColumns | None = None
) -> dict[str, str]:
    """Return for each volume, by its name in the scores, its subject in the table where no column was named.

    Without `data.subject_column` each file counts as a subject and is named by its path. The subject is in a
    column with a usual name for it, or in one with another name in each cell that is a part of the file's.

    Args:
        run: With `subjects.csv`.
        settings: Of the run.
        columns: Of the volumes; None: those of the run.
    """
    if settings.data.subject_column is not None:
        return {}
    try:
        known = read_subjects(run, settings) if columns is None else columns
    except SettingsError:  # the page notes it beside the table of subjects
        return {}
    usual, naming = filter(is_subject_column, known.names), filter(partial(_names_files, known), known.names)
    column = next(usual, None) or next(naming, None)
    if column is None:
        return {}
    return {
        item: cells[column] for item, cells in known.rows.items() if not is_missing(cells.get(column, ""))
    }


def _names_files(known: SubjectColumns, column: str) -> bool:
    """Return whether a column has in each row another word, a part of the name of that row's file."""
    cells = {item: row.get(column, "") for item, row in known.rows.items()}
    if len(set(cells.values())) < max(2, len(cells)):
        return False
    return all(
        re.search(rf"(?<![A-Za-z0-9]){re.escape(cell)}(?![A-Za-z0-9])", item) is not None
        and not cell.lower().endswith(IMAGE_SUFFIXES)  # that is the column of the files
        for item, cell in cells.items()
    )


def add_site(evaluation: EvaluationSettings, settings: TrainSettings) -> EvaluationSettings:
    """Return the settings with the column of the sites that the splits are by among the groups."""
    column = settings.splits.leave_out or settings.splits.by
    if column is None or column in evaluation.by:
        return evaluation
    return replace(evaluation, by=[*evaluation.by, column])


def build_groupings(
    request: str, fits: Fits, columns: SubjectColumns, *, quantiles: int = 3
) -> list[Grouping]:
    """Return how an entry of `evaluation.by` divides each fit's volumes, with the same groups for all fits.

    Args:
        request: The entry, a column or a column with edges.
        fits: One model's predictions, one per fold and seed.
        columns: Of the volumes.
        quantiles: Groups of a column of numbers without edges.

    Raises:
        SettingsError: There is no such column.
    """
    column, edges = split_request(request)
    items = list(dict.fromkeys(item for fit in fits for item in fit.items))
    values = columns.read(column, items)
    refuse_cut_text(request, values)
    whole = cut_groups(column, values, edges=edges, quantiles=quantiles)
    code_of = dict(zip(items, whole.codes, strict=True))
    return [
        Grouping(column, whole.names, np.array([code_of[item] for item in fit.items], np.int64))
        for fit in fits
    ]
