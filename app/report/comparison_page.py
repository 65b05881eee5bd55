"""The page of a comparison: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from voxlift.app.evaluation.calibration import apply_temperature
from voxlift.app.evaluation.metrics import metric_label
from voxlift.app.evaluation.scores import Scores
from voxlift.app.evaluation.verdict import overall_verdict, winner
from voxlift.app.report import tables
from voxlift.app.report.cases import case_picture
from voxlift.app.report.figures import calibration_figure, difference_figure, forest_figure
from voxlift.app.report.html import (
    MOST_CURVES,
    both_curves,
    drawn_classes,
    history_figures,
    shared,
    show_table,
    write_page,
)
from voxlift.app.report.summary import ComparisonSummary


def write_comparison_report(summary: ComparisonSummary, path: Path) -> Path:
    """Write the page of a comparison and return its path; UTF-8, no script, nothing loaded from elsewhere."""
    return write_page("comparison.html.j2", path, comparison_page_values(summary))


def comparison_page_values(summary: ComparisonSummary) -> dict[str, Any]:
    """Everything that the template of a comparison needs."""
    first, comparisons = next(iter(summary.models.values()))[0], summary.comparisons
    pooled = {name: pool_cells(cells) for name, cells in summary.models.items()}
    primary = comparisons[0].primary
    label = metric_label(primary)
    return shared(summary) | {
        "verdict": overall_verdict(comparisons),
        "primary": label,
        "level": f"{comparisons[0].level * 100:g}",
        "subjects": comparisons[0].subjects,
        "cells": comparisons[0].cells,
        "seeds": comparisons[0].trainings,
        "is_binary": first.is_binary,
        "winners": [winner(one) for one in comparisons],
        "pairs": tables.comparison_rows(comparisons),
        "details": [(one.first, one.second, tables.difference_rows(one)) for one in comparisons],
        "rows": tables.metric_rows(summary.metrics),
        "class_rows": tables.class_rows(summary.metrics, first.classes),
        "counts": tables.count_rows(summary.metrics),
        "columns": list(summary.metrics),
        "costs": tables.cost_rows(summary.costs),
        "cost_columns": list(summary.costs),
        "forest": forest_figure(summary.metrics, primary, name="forest", title=f"{label} of each model"),
        "difference": difference_figure(comparisons, name="difference", title=f"Differences of {label}"),
        "curves": _comparison_curves(pooled, mark=comparisons[0].cells == 1),
        "curves_left_out": drawn_classes(first)[1],
        "confusions": [
            (name, first.classes, tables.confusion_rows(cells)) for name, cells in summary.models.items()
        ],
        "calibrations": _calibration_figures(summary, pooled),
        "temperature": tables.calibration_table(summary.models, summary.temperatures)
        if summary.temperatures
        else None,
        "histories": history_figures(summary.histories),
        "cases": [[(name, one, case_picture(one)) for name, one in case.items()] for case in summary.cases],
        "has_maps": any(one.maps for case in summary.cases for one in case.values()),
        "trainings": show_table(summary.trainings),
        "configs": summary.configs,
    }


def pool_cells(cells: Sequence[Scores]) -> Scores:
    """All folds and seeds of a model as one set of rows, for curves and bins.

    Each cell decides at its own threshold: decisions of the pooled rows mean nothing.
    """
    first = cells[0]
    return replace(
        first,
        subjects=tuple(subject for cell in cells for subject in cell.subjects),
        items=tuple(f"{index}/{item}" for index, cell in enumerate(cells) for _, item in cell.keys),
        labels=np.concatenate([cell.labels for cell in cells]),
        probabilities=np.concatenate([cell.probabilities for cell in cells]),
    )


def _calibration_figures(
    summary: ComparisonSummary, pooled: Mapping[str, Scores]
) -> list[tuple[str, Markup]]:
    found = [
        ("As predicted", calibration_figure(pooled, name="calibration", title="Calibration as predicted"))
    ]
    if summary.temperatures:
        scaled = {
            name: pool_cells(
                [apply_temperature(*pair) for pair in zip(cells, summary.temperatures[name], strict=True)]
            )
            for name, cells in summary.models.items()
        }
        figure = calibration_figure(scaled, name="calibration-scaled", title="Calibration after scaling")
        found.append(("Temperature-scaled, fitted on validation", figure))
    return found


def _comparison_curves(pooled: Mapping[str, Scores], *, mark: bool) -> list[tuple[str, Markup]]:
    first = next(iter(pooled.values()))
    found = []
    for k in drawn_classes(first)[0]:
        series = {name: (scores, k) for name, scores in list(pooled.items())[:MOST_CURVES]}
        found += both_curves(series, first.classes[k], key=k, mark=mark)
    return found
