"""Fills the page of a comparison from the files of its trials' run folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from voxlift.app.comparison.comparable import Comparable
from voxlift.app.comparison.trial import Trial, trials_by_model
from voxlift.app.config import SettingsError
from voxlift.app.evaluation.pairing import align
from voxlift.app.files import read_json
from voxlift.app.report.cases import build_case, positions_of, read_prepared
from voxlift.app.report.comparison_page import write_comparison_report
from voxlift.app.report.formatting import MISSING
from voxlift.app.report.html import now
from voxlift.app.report.run_page import count_splits, describe_data, read_history, spoken_task
from voxlift.app.report.summary import ComparisonSummary
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.networks import load_network
from voxlift.app.runs.subjects import reopen_cohort
from voxlift.data_pipelines.volume import VolumeError

if TYPE_CHECKING:
    from voxlift.app.evaluation.paired import Comparison
    from voxlift.app.evaluation.scores import Scores
    from voxlift.app.report.summary import Case


def write_comparison_page(
    found: Comparable,
    models: Mapping[str, Mapping[str, Any]],
    pairs: Sequence[Comparison],
    *,
    cells: Mapping[str, Sequence[Scores]],
    folder: Path,
) -> Path:
    """Write `report.html` of a comparison; its path."""
    by_model = trials_by_model(found.trials)
    first = {name: of_model[0].run for name, of_model in by_model.items()}
    run = found.trials[0].run
    settings = load_settings(run)
    summary = ComparisonSummary(
        name=f"{' against '.join(models)} on {spoken_task(settings.data)}",
        comparisons=pairs,
        models=cells,
        metrics={name: model["test"] for name, model in models.items()},
        costs={name: model["cost"] for name, model in models.items()},
        histories={name: read_history(first[name]) for name in models},
        splits=count_splits(run),
        configs={name: first[name].config.read_text(encoding="utf-8") for name in models},
        environment=read_json(run.environment),
        temperatures=read_temperatures(by_model),
        trainings=[training_row(trial, folder) for trial in found.trials],
        cases=pick_disagreements({name: own[0] for name, own in cells.items()}, first),
        audit=describe_data(run, settings),
        notes=found.notes,
        created=now(),
    )
    return write_comparison_report(summary, folder / "report.html")


def read_temperatures(by_model: Mapping[str, Sequence[Trial]]) -> dict[str, list[float]]:
    """The temperature of each training; nothing where a run of an earlier version has none."""
    blocks = {
        name: [read_json(trial.run.metrics).get("calibration") for trial in trials]
        for name, trials in by_model.items()
    }
    if any(block is None for own in blocks.values() for block in own):
        return {}
    return {name: [float(block["temperature"]) for block in own if block] for name, own in blocks.items()}


def training_row(trial: Trial, folder: Path) -> dict[str, object]:
    """A training's row in the page's table."""
    metrics = read_json(trial.run.metrics)
    return {
        "model": trial.model,
        "fold": str(trial.fold),
        "seed": str(trial.seed),
        "best epoch": _best_epoch(metrics["cost"]),
        "validation AUC": metrics["val"]["auc"],
        "test AUC": metrics["test"]["auc"],
        "training (s)": metrics["cost"]["train_seconds"],
        "run": os.path.relpath(trial.run.path, folder),
    }


def _best_epoch(cost: Mapping[str, int]) -> str:
    return str(cost["best_epoch"] + 1) if "best_epoch" in cost else MISSING


log = logging.getLogger("voxlift")

SHOWN = 6


def pick_disagreements(cells: Mapping[str, Scores], runs: Mapping[str, RunFolder]) -> list[dict[str, Case]]:
    """The test volumes with the widest spread of the true class' probability over the models.

    Args:
        cells: model to its scores on the same volumes.
        runs: model to the run that gave them, whose network draws Grad-CAM over its prepared volumes.

    Returns:
        Per volume, model name to its case; nothing where the volumes are no longer there.
    """
    anchor = next(iter(cells.values()))
    aligned = {name: align(anchor, scores) for name, scores in cells.items()}
    rows = np.arange(len(anchor))
    rated = np.stack([scores.probabilities[rows, scores.labels] for scores in aligned.values()])
    spread = rated.max(axis=0) - rated.min(axis=0)
    chosen = [int(row) for row in np.argsort(-spread, kind="stable")[:SHOWN]]
    try:
        shown = {name: _cases_of(runs[name], scores, chosen) for name, scores in aligned.items()}
    except (SettingsError, VolumeError, OSError) as error:
        log.info("The page shows no cases: %s", error)  # a finished comparison is worth more than a picture
        return []
    return [{name: cases[i] for name, cases in shown.items()} for i in range(len(chosen))]


def _cases_of(run: RunFolder, scores: Scores, rows: list[int]) -> list[Case]:
    cohort, network = reopen_cohort(load_settings(run), run, split="test"), _load(run)
    positions = positions_of(cohort)
    return [
        build_case(scores, row, read_prepared(cohort, positions[scores.items[row]]), network) for row in rows
    ]


def _load(run: RunFolder) -> Any | None:  # noqa: ANN401 - Keras ships no types
    """The run's network; None where it cannot be loaded, and its cases are shown plain."""
    try:
        return load_network(run.model)
    except SettingsError as error:
        log.info("The page shows no Grad-CAM: %s", error)
        return None
