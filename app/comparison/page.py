"""Fills the page of a comparison from the files of its trials' run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.comparison.cells import Comparable
from app.pages import count_splits, now
from app.runs import load_settings, read_json, read_rows

if TYPE_CHECKING:
    from app.evaluation.paired import Comparison
    from app.evaluation.scores import Scores


def write_comparison_page(
    found: Comparable,
    models: Mapping[str, Mapping[str, Any]],
    pairs: Sequence[Comparison],
    *,
    cells: Mapping[str, Sequence[Scores]],
    folder: Path,
) -> Path:
    """Write `report.html` of a comparison; its path."""
    from app.report.html import write_comparison_report
    from app.report.summary import ComparisonSummary

    trials = found.trials
    first = {trial.model: trial.run for trial in reversed(trials)}
    settings = load_settings(trials[0].run)
    summary = ComparisonSummary(
        name=f"{' against '.join(models)} on {settings.data.task or settings.data.name}",
        comparisons=pairs,
        models=cells,
        metrics={name: model["test"] for name, model in models.items()},
        costs={name: model["cost"] for name, model in models.items()},
        histories={name: read_rows(first[name].history) for name in models},
        splits=count_splits(trials[0].run),
        configs={name: first[name].config.read_text(encoding="utf-8") for name in models},
        environment=read_json(trials[0].run.environment),
        notes=found.notes,
        created=now(),
    )
    return write_comparison_report(summary, folder / "report.html")
