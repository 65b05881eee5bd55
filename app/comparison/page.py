"""Write the page of a comparison from the files in its trials' run folders."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from voxlift.app.comparison.selection import SelectedTrials
from voxlift.app.comparison.trial import Trial, group_by_model
from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.evaluation.calibration import Calibration
from voxlift.app.evaluation.metric_names import metric_label
from voxlift.app.evaluation.scores import Predictions, Scores, align_scores
from voxlift.app.files import read_json
from voxlift.app.inference.groups import find_case_groups, find_case_names
from voxlift.app.report.case_facts import CaseRow
from voxlift.app.report.cases import MAX_CASES, build_cases
from voxlift.app.report.comparison_page import ComparisonSummary, render_comparison_page
from voxlift.app.report.pages import timestamp
from voxlift.app.report.run_page import add_groups, count_splits, describe_data, describe_task
from voxlift.app.report.tables import format_value, show_config, show_path
from voxlift.app.runs.cohort import reopen_split
from voxlift.app.runs.configuration import load_settings, mark_extension
from voxlift.app.runs.folder import RunFolder, load_network
from voxlift.app.runs.results import find_best_epoch, read_history
from voxlift.app.tasks.base import task_of
from voxlift.data_pipelines.volume import VolumeError

if TYPE_CHECKING:
    from voxlift.app.evaluation.paired import Comparison
    from voxlift.app.report.cases import Case
    from voxlift.app.report.evidence import Evidence


log = logging.getLogger("voxlift")

TRAINING_COLUMNS = {"auc": "AUC", "kappa_quadratic": "kappa"}  # short headings


def write_comparison_page(
    selected: SelectedTrials,
    models: Mapping[str, Mapping[str, Any]],
    pairs: Sequence[Comparison],
    *,
    scores: Mapping[str, Sequence[Predictions]],
    folder: Path,
    evidence: Evidence,
    settings: TrainSettings,
) -> Path:
    """Write `report.html` of a comparison and return its path.

    Args:
        selected: Compared trials, with notes.
        models: Metrics and costs of each model, as in `comparison.json`.
        pairs: Paired comparisons.
        scores: Test scores of each model, one per fold and seed.
        folder: Folder of the comparison.
        evidence: Sections on the subjects and the subgroups.
        settings: Of the first trial, with what is reported as the comparison asks for.
    """
    by_model = group_by_model(selected.trials)
    first = {name: of_model[0].run for name, of_model in by_model.items()}
    run = selected.trials[0].run
    anchor = {name: own[0] for name, own in scores.items()}
    cases = select_disagreements(anchor, first, settings.report.cases)
    groups = find_case_groups(run, settings, next(iter(anchor.values())))
    names = find_case_names(run, settings)
    cases = [{name: add_groups(case, groups, names) for name, case in one.items()} for one in cases]
    summary = ComparisonSummary(
        name=f"{' against '.join(models)} on {describe_task(settings.data)}",
        comparisons=pairs,
        models=scores,
        metrics={name: model["test"] for name, model in models.items()},
        costs={name: model["cost"] for name, model in models.items()},
        histories={name: read_history(first[name]) for name in models},
        splits=count_splits(run, task_of(settings), task_of(settings).names(settings.data)),
        configs={
            name: show_config(first[name].config.read_text(encoding="utf-8"), folder) for name in models
        },
        environment=read_json(run.environment),
        calibrations=read_calibrations(by_model),
        trainings=mark_resumed(
            [build_training_row(trial, folder, pairs[0].primary) for trial in selected.trials],
            [trial.run for trial in selected.trials],
        ),
        cases=cases,
        is_interactive=settings.report.interactive,
        audit=describe_data(run, settings),
        notes=selected.notes,
        evidence=evidence,
        created=timestamp(),
    )
    return render_comparison_page(summary, folder / "report.html")


def read_calibrations(by_model: Mapping[str, Sequence[Trial]]) -> dict[str, list[Calibration]]:
    """Return the calibration of each training; nothing where a run of an earlier version has none."""
    blocks = {
        name: [read_json(trial.run.metrics).get("calibration") for trial in trials]
        for name, trials in by_model.items()
    }
    if any(block is None for own in blocks.values() for block in own):
        return {}
    return {name: [Calibration.from_json(block) for block in own if block] for name, own in blocks.items()}


def build_training_row(trial: Trial, folder: Path, primary: str) -> dict[str, object]:
    """Return a training's row in the page's table, with its value of the primary metric."""
    metrics = read_json(trial.run.metrics)
    cost, label = metrics["cost"], TRAINING_COLUMNS.get(primary, metric_label(primary))
    return {
        "model": trial.model,
        "fold": str(trial.fold),
        "seed": str(trial.seed),
        "best epoch": format_value(find_best_epoch(cost)),
        f"validation {label}": metrics["val"][primary],
        f"test {label}": metrics["test"][primary],
        "training (s)": cost["train_seconds"],
        "run": show_path(trial.run.path, folder),
    }


def mark_resumed(rows: Sequence[Mapping[str, object]], runs: Sequence[RunFolder]) -> list[dict[str, object]]:
    """Return rows of runs with a column `resumed` where one of them was resumed for more epochs."""
    marks = [mark_extension(run) for run in runs]
    return [
        {**row, **({"resumed": mark} if any(marks) else {})} for row, mark in zip(rows, marks, strict=True)
    ]


def select_disagreements(
    scores: Mapping[str, Predictions], runs: Mapping[str, RunFolder], count: int = MAX_CASES
) -> list[dict[str, Case]]:
    """Return the test volumes with the widest range of the models' predictions, see `rank_disagreements`.

    Args:
        scores: Scores of each model on the same volumes.
        runs: Run of each model's scores; its network draws Grad-CAM over its prepared volumes.
        count: Volumes at most.

    Returns:
        For each volume, the case of each model; nothing where the volumes no longer exist.
    """
    anchor = next(iter(scores.values()))
    aligned = {name: align_scores(anchor, own) for name, own in scores.items()}
    selected = rank_disagreements(list(aligned.values()))[:count]
    try:
        shown = {name: _build_cases(runs[name], own, selected) for name, own in aligned.items()}
    except (SettingsError, VolumeError, OSError) as error:
        log.info("The page shows no cases: %s", error)  # a finished comparison is worth more than a picture
        return []
    return [{name: cases[i] for name, cases in shown.items()} for i in range(len(selected))]


def rank_disagreements(models: Sequence[Predictions]) -> list[CaseRow]:
    """Return the rows (of findings: row and finding) by the range of the predictions, widest first.

    Compared are the probability of the true class or grade, of a finding where it is known, or the number.
    """
    first = models[0]
    if isinstance(first, Scores):
        rows = np.arange(len(first))
        rated = np.stack([getattr(own, own.predicted)[rows, own.labels] for own in models])
    else:
        rated = np.stack([getattr(own, own.predicted) for own in models])
    spread = (rated.max(axis=0) - rated.min(axis=0)).reshape(len(first), -1)
    known = np.isfinite(first.labels).reshape(len(first), -1)
    order = np.argsort(-spread, axis=None, kind="stable")
    cells = [divmod(int(cell), spread.shape[1]) for cell in order]
    return [cell for cell in cells if known[cell]]


def _build_cases(run: RunFolder, scores: Predictions, rows: list[CaseRow]) -> list[Case]:
    """Return the cases of some rows; without Grad-CAM where the network cannot be loaded."""
    cohort = reopen_split(load_settings(run), run, split="test")
    try:
        network: Any = load_network(run.model)
    except SettingsError as error:
        log.info("The page shows no Grad-CAM: %s", error)
        network = None
    return build_cases(scores, rows, cohort, network)
