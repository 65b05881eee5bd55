"""Fills the page of a comparison from the files of its trials' run folders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.comparison.cells import Comparable
from voxlift.app.comparison.disagreement import pick_disagreements
from voxlift.app.files import read_json
from voxlift.app.report.comparison import write_comparison_report
from voxlift.app.report.page import now
from voxlift.app.report.quantities import MISSING
from voxlift.app.report.summary import ComparisonSummary
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.datanotes import describe_data, spoken_task
from voxlift.app.runs.page import count_splits, read_history
from voxlift.app.trials.trial import Trial, trials_by_model

if TYPE_CHECKING:
    from voxlift.app.evaluation.paired import Comparison
    from voxlift.app.evaluation.scores import Scores


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
