"""The report pages: one self-contained HTML file per run and per comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from app.evaluation.calibration import apply_temperature
from app.evaluation.intervals import RESAMPLES
from app.evaluation.metrics import metric_label, score_metrics
from app.evaluation.paired import model_intervals, point_metrics
from app.evaluation.scores import Scores
from app.evaluation.verdict import overall_verdict, run_verdict, winner
from app.report import tables
from app.report.figures import calibration_figure, precision_recall_figure, roc_figure
from app.report.montage import case_picture
from app.report.page import write_page
from app.report.quantities import format_value
from app.report.style import anchor
from app.report.summary import Case, ComparisonSummary, Row, RunSummary
from app.report.trends import difference_figure, forest_figure, history_figure, history_panels

MOST_CURVES = 6  # more bands in one figure cannot be told apart


def write_run_report(summary: RunSummary, path: Path) -> Path:
    """Write the page of one run and return its path; UTF-8, no script, nothing loaded from elsewhere."""
    return write_page("run.html.j2", path, run_page_values(summary))


def write_comparison_report(summary: ComparisonSummary, path: Path) -> Path:
    """Write the page of a comparison and return its path; UTF-8, no script, nothing loaded from elsewhere."""
    return write_page("comparison.html.j2", path, comparison_page_values(summary))


def summarise_models(
    models: Mapping[str, Sequence[Scores]], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, object]]:
    """The blocks of `ComparisonSummary.metrics`: values over folds and seeds, with their intervals."""
    bounds = model_intervals(models, resamples=resamples, seed=seed)
    blocks: dict[str, dict[str, object]] = {}
    for name, cells in models.items():
        subjects = {subject for cell in cells for subject in cell.subjects}
        volumes = {key for cell in cells for key in cell.keys}
        blocks[name] = {key: _finite(value) for key, value in point_metrics(cells).items()}
        blocks[name] |= {"n": len(volumes), "subjects": len(subjects)}
        blocks[name]["intervals"] = {
            key: [_finite(low), _finite(high)] for key, (low, high) in bounds[name].items()
        }
    return blocks


def pool_cells(cells: Sequence[Scores]) -> Scores:
    """All folds and seeds of a model as one set of rows, for curves and bins."""
    first = cells[0]
    return replace(
        first,
        subjects=tuple(subject for cell in cells for subject in cell.subjects),
        items=tuple(f"{index}/{item}" for index, cell in enumerate(cells) for _, item in cell.keys),
        labels=np.concatenate([cell.labels for cell in cells]),
        probabilities=np.concatenate([cell.probabilities for cell in cells]),
    )


def run_page_values(summary: RunSummary) -> dict[str, Any]:
    """Everything that the template of a run needs."""
    scores = summary.scores.get(summary.split)
    block = summary.metrics.get(summary.split, {})
    classes = scores.classes if scores is not None else ()
    return _shared(summary) | {
        "verdict": run_verdict(block, name=summary.name, split=summary.split),
        "rows": tables.metric_rows(summary.metrics),
        "class_rows": tables.class_rows(summary.metrics, classes),
        "counts": tables.count_rows(summary.metrics),
        "columns": list(summary.metrics),
        "costs": tables.cost_rows({summary.name: summary.cost}),
        "cost_columns": [],
        "curves": _run_curves(scores, summary.split),
        "confusions": [(summary.name, scores.classes, tables.confusion_rows(scores))] if scores else [],
        "calibration": _run_calibration(summary),
        "temperature": _temperature_rows(summary),
        "histories": _history_figures({summary.name: summary.history}),
        "cases": [
            ("Surest and wrong", _cases(summary.worst)),
            ("Surest and right", _cases(summary.surest)),
        ],
        "has_maps": any(case.maps for case in (*summary.worst, *summary.surest)),
        "configs": {"": summary.config} if summary.config else {},
    }


def comparison_page_values(summary: ComparisonSummary) -> dict[str, Any]:
    """Everything that the template of a comparison needs."""
    pooled = {name: pool_cells(cells) for name, cells in summary.models.items()}
    primary = summary.comparisons[0].primary
    label = metric_label(primary)
    return _shared(summary) | {
        "verdict": overall_verdict(summary.comparisons),
        "primary": label,
        "level": f"{summary.comparisons[0].level * 100:g}",
        "subjects": summary.comparisons[0].subjects,
        "cells": summary.comparisons[0].cells,
        "winners": [winner(one) for one in summary.comparisons],
        "pairs": tables.comparison_rows(summary.comparisons),
        "details": [
            (one.first, one.second, tables.difference_rows(one), one.mcnemar, one.delong)
            for one in summary.comparisons
        ],
        "rows": tables.metric_rows(summary.metrics),
        "class_rows": tables.class_rows(summary.metrics, next(iter(pooled.values())).classes),
        "counts": tables.count_rows(summary.metrics),
        "columns": list(summary.metrics),
        "costs": tables.cost_rows(summary.costs),
        "cost_columns": list(summary.costs),
        "forest": forest_figure(summary.metrics, primary, name="forest", title=f"{label} of each model"),
        "difference": difference_figure(
            summary.comparisons, name="difference", title=f"Differences of {label}"
        ),
        "curves": _comparison_curves(pooled),
        "confusions": [(name, s.classes, tables.confusion_rows(s)) for name, s in pooled.items()],
        "calibration": calibration_figure(pooled, name="calibration", title="Calibration of each model"),
        "temperature": [],
        "histories": _history_figures(summary.histories),
        "configs": summary.configs,
    }


def _shared(summary: RunSummary | ComparisonSummary) -> dict[str, Any]:
    return {
        "title": summary.name,
        "created": summary.created,
        "split": summary.split,
        "notes": summary.notes,
        "audit": summary.audit,
        "splits": _table(summary.splits),
        "environment": tables.flatten(summary.environment),
    }


def _table(rows: Sequence[Row]) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Headings, and cells as (text, whether it is a number)."""
    headings = list(rows[0]) if rows else []
    body = [
        [(format_value(row.get(heading)), isinstance(row.get(heading), int | float)) for heading in headings]
        for row in rows
    ]
    return headings, body


def _run_curves(scores: Scores | None, split: str) -> list[tuple[str, Markup]]:
    if scores is None:
        return []
    wanted = [1] if scores.is_binary else range(min(len(scores.classes), MOST_CURVES))
    known = [k for k in wanted if 0 < (scores.labels == k).sum() < len(scores)]
    series = {scores.classes[k]: (scores, k) for k in known}
    return _both_curves(series, split) if series else []


def _comparison_curves(pooled: Mapping[str, Scores]) -> list[tuple[str, Markup]]:
    first = next(iter(pooled.values()))
    wanted = [1] if first.is_binary else range(min(len(first.classes), MOST_CURVES))
    found = []
    for k in wanted:
        if 0 < (first.labels == k).sum() < len(first):
            series = {name: (scores, k) for name, scores in list(pooled.items())[:MOST_CURVES]}
            found += _both_curves(series, first.classes[k])
    return found


def _both_curves(series: Mapping[str, tuple[Scores, int]], what: str) -> list[tuple[str, Markup]]:
    key = anchor(what)
    return [
        (f"ROC, {what}", roc_figure(series, name=f"roc-{key}", title=f"ROC curve, {what}")),
        (
            f"Precision and recall, {what}",
            precision_recall_figure(series, name=f"pr-{key}", title=f"Precision-recall curve, {what}"),
        ),
    ]


def _run_calibration(summary: RunSummary) -> Markup | None:
    scores = summary.scores.get(summary.split)
    if scores is None:
        return None
    series = {"as predicted": scores}
    if summary.temperature is not None:
        series["temperature-scaled"] = apply_temperature(scores, summary.temperature.value)
    return calibration_figure(series, name="calibration", title="Calibration")


def _temperature_rows(summary: RunSummary) -> list[tuple[str, str, str]]:
    """Metric, before and after scaling, on the split that the page is about."""
    scores = summary.scores.get(summary.split)
    if scores is None or summary.temperature is None:
        return []
    before = score_metrics(scores)
    after = score_metrics(apply_temperature(scores, summary.temperature.value))
    rows = [
        (metric_label(name), format_value(before[name]), format_value(after[name]))
        for name in ("log_loss", "brier", "ece")
    ]
    return [("Temperature (fitted on validation)", "1.000", format_value(summary.temperature.value)), *rows]


def _history_figures(histories: Mapping[str, Sequence[Row]]) -> list[Markup]:
    known = {name: history for name, history in histories.items() if history}
    if not known:
        return []
    panels = history_panels(next(iter(known.values())))
    return [
        history_figure(known, panel, name=f"history-{panel}", title=f"{metric_label(panel)} over epochs")
        for panel in panels
    ]


def _cases(cases: Sequence[Case]) -> list[tuple[Case, str]]:
    return [(case, case_picture(case)) for case in cases]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
