"""Lay out the results of a comparison of several models as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from voxlift.app.evaluation.calibration import apply_temperature
from voxlift.app.evaluation.metrics import metric_label
from voxlift.app.evaluation.paired import Comparison
from voxlift.app.evaluation.scores import Scores
from voxlift.app.evaluation.verdict import overall_verdict
from voxlift.app.report import tables
from voxlift.app.report.cases import Case, case_picture
from voxlift.app.report.figures import (
    MAX_CURVES,
    CaptionedFigure,
    calibration_figure,
    curve_figures,
    difference_figure,
    forest_figure,
    learning_curve_figures,
    select_classes,
)
from voxlift.app.report.html import write_page
from voxlift.app.report.tables import Row


@dataclass(frozen=True, eq=False)
class ComparisonSummary:
    """Everything that the page of a comparison shows.

    Attributes:
        name: Heading of the page.
        comparisons: Pairs, from `compare_models`.
        models: Model name to its scores, one per fold and seed in the same order for all.
        metrics: Model name to its values and `intervals`; `summarise_models` makes it from `models`.
        costs: Model name to any of the cost keys of `RunSummary`.
        histories: Model name to its rows, one per epoch (of the first fold and seed).
        splits: Rows of the table of splits.
        configs: Model name to its resolved configuration as YAML text.
        environment: As in `RunSummary`.
        temperatures: Model name to the temperature of each fold and seed, fitted on validation; empty for
            none.
        trainings: Rows of the table of trainings: model, seed, scores, path.
        cases: Volumes on which the models disagree most: per volume, model name to its case.
        split: Split on which all were scored.
        audit: As in `RunSummary`.
        notes: As in `RunSummary`.
        created: Date and time, as text.
    """

    name: str
    comparisons: Sequence[Comparison]
    models: Mapping[str, Sequence[Scores]]
    metrics: Mapping[str, Mapping[str, object]]
    costs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    histories: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    splits: Sequence[Row] = ()
    configs: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    temperatures: Mapping[str, Sequence[float]] = field(default_factory=dict)
    trainings: Sequence[Row] = ()
    cases: Sequence[Mapping[str, Case]] = ()
    split: str = "test"
    audit: Sequence[str] | None = None
    notes: Sequence[str] = ()
    created: str = ""


def render_comparison_page(summary: ComparisonSummary, path: Path) -> Path:
    """Write the summary of a comparison as one HTML file and return its path."""
    return write_page("comparison.html.j2", path, comparison_page_values(summary))


def comparison_page_values(summary: ComparisonSummary) -> dict[str, Any]:
    """Return everything that the template of a comparison needs."""
    comparisons = summary.comparisons
    classes = next(iter(summary.models.values()))[0].classes
    return {
        "title": summary.name,
        "created": summary.created,
        "split": summary.split,
        "notes": summary.notes,
        "audit": summary.audit,
        "splits": tables.table_cells(summary.splits),
        "environment": tables.flat_rows(summary.environment),
        "verdict": overall_verdict(comparisons),
        "level": f"{comparisons[0].level * 100:g}",
        "subjects": comparisons[0].subjects,
        "fits": comparisons[0].cells,
        "seeds": comparisons[0].trainings,
        "margin": f"{comparisons[0].margin:g}",
        "equivalence_level": f"{comparisons[0].level * 200 - 100:g}",
        "pairs": tables.comparison_rows(comparisons),
        "details": [(one.first, one.second, tables.difference_rows(one)) for one in comparisons],
        "rows": tables.metric_rows(summary.metrics),
        "class_rows": tables.class_rows(summary.metrics, classes),
        "counts": tables.count_rows(summary.metrics),
        "columns": list(summary.metrics),
        "costs": tables.cost_rows(summary.costs),
        "cost_columns": list(summary.costs),
        "confusions": [(name, classes, tables.confusion_rows(fits)) for name, fits in summary.models.items()],
        "cases": [[(name, one, case_picture(one)) for name, one in case.items()] for case in summary.cases],
        "has_maps": any(one.maps for case in summary.cases for one in case.values()),
        "trainings": tables.table_cells(summary.trainings),
        "configs": summary.configs,
        **_figure_values(summary),
    }


def _figure_values(summary: ComparisonSummary) -> dict[str, Any]:
    """Return the figures of the page, and the values that their captions need."""
    comparisons = summary.comparisons
    pooled = {name: pool_fits(fits) for name, fits in summary.models.items()}
    first = next(iter(pooled.values()))
    label = metric_label(comparisons[0].primary)
    return {
        "primary": label,
        "is_binary": first.is_binary,
        "forest": forest_figure(
            summary.metrics, comparisons[0].primary, name="forest", title=f"{label} of each model"
        ),
        "difference": difference_figure(comparisons, name="difference", title=f"Differences of {label}"),
        "curves": _curves(pooled, summary.split, show_threshold=comparisons[0].cells == 1),
        "curves_left_out": select_classes(first)[1],
        "calibrations": _calibrations(summary, pooled),
        "temperature": tables.calibration_table(summary.models, summary.temperatures)
        if summary.temperatures
        else None,
        "histories": learning_curve_figures(summary.histories),
    }


def pool_fits(fits: Sequence[Scores]) -> Scores:
    """Return all folds and seeds of a model as one set of rows, for curves and calibration bins.

    Each fold and seed has its own threshold, so the decisions of the pooled rows are not meaningful.
    """
    return replace(
        fits[0],
        subjects=tuple(subject for fit in fits for subject in fit.subjects),
        items=tuple(f"{index}/{item}" for index, fit in enumerate(fits) for _, item in fit.keys),
        labels=np.concatenate([fit.labels for fit in fits]),
        probabilities=np.concatenate([fit.probabilities for fit in fits]),
    )


def _curves(pooled: Mapping[str, Scores], split: str, *, show_threshold: bool) -> list[CaptionedFigure]:
    first = next(iter(pooled.values()))
    shown = list(pooled.items())[:MAX_CURVES]
    found = []
    for k in select_classes(first)[0]:
        rest = "" if first.is_binary else " (against the rest)"
        found += curve_figures(
            {name: (scores, k) for name, scores in shown},
            f"{split} split: probability of {first.classes[k]}{rest}",
            key=k,
            show_threshold=show_threshold,
        )
    return found


def _calibrations(summary: ComparisonSummary, pooled: Mapping[str, Scores]) -> list[CaptionedFigure]:
    found = [calibration_figure(pooled, name="calibration", title="Calibration as predicted")]
    if summary.temperatures:
        scaled = {
            name: pool_fits(
                [apply_temperature(*pair) for pair in zip(fits, summary.temperatures[name], strict=True)]
            )
            for name, fits in summary.models.items()
        }
        title = "Calibration after temperature scaling, fitted on validation"
        found.append(calibration_figure(scaled, name="calibration-scaled", title=title))
    return found
