"""Lay out the results of a comparison of several models as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxlift.app.evaluation.calibration import Calibration
from voxlift.app.evaluation.metric_names import WITH_UNIT, metric_label
from voxlift.app.evaluation.paired import Comparison
from voxlift.app.evaluation.scores import Predictions, Scores, fits_of
from voxlift.app.evaluation.verdict import describe_chance, overall_verdict
from voxlift.app.report import tables
from voxlift.app.report.case_viewer import lay_out_cases
from voxlift.app.report.cases import Case
from voxlift.app.report.evidence import Evidence
from voxlift.app.report.figures import difference_figure, forest_figure, learning_curve_figures
from voxlift.app.report.pages import SERIES, assign_colours, write_page
from voxlift.app.report.result_views import view_results
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
        calibrations: Model name to the calibration of each fold and seed, fitted on validation; empty for
            none.
        trainings: Rows of the table of trainings: model, seed, scores, path.
        cases: Volumes on which the models disagree most: per volume, model name to its case.
        is_interactive: As in `RunSummary`.
        split: Split on which all were scored.
        audit: As in `RunSummary`.
        notes: As in `RunSummary`.
        evidence: As in `RunSummary`.
        colours: Model name to the index of its series; empty: see `assign_colours`.
        created: Date and time, as text.
    """

    name: str
    comparisons: Sequence[Comparison]
    models: Mapping[str, Sequence[Predictions]]
    metrics: Mapping[str, Mapping[str, object]]
    costs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    histories: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    splits: Sequence[Row] = ()
    configs: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    calibrations: Mapping[str, Sequence[Calibration]] = field(default_factory=dict)
    trainings: Sequence[Row] = ()
    cases: Sequence[Mapping[str, Case]] = ()
    is_interactive: bool = True
    split: str = "test"
    audit: Sequence[str] | None = None
    notes: Sequence[str] = ()
    evidence: Evidence = field(default_factory=Evidence)
    colours: Mapping[str, int] = field(default_factory=dict)
    created: str = ""


def render_comparison_page(summary: ComparisonSummary, path: Path) -> Path:
    """Write the summary of a comparison as one HTML file and return its path."""
    return write_page("comparison.html.j2", path, comparison_page_values(summary))


def comparison_page_values(summary: ComparisonSummary) -> dict[str, Any]:
    """Return everything that the template of a comparison needs."""
    comparisons = summary.comparisons
    unit = next(iter(summary.models.values()))[0].unit
    chance = describe_chance(summary.metrics, comparisons[0].primary)
    colours = summary.colours or assign_colours(summary.models)
    views = view_results(summary.models, summary.split, calibrations=summary.calibrations, colours=colours)
    cases = lay_out_cases([("", summary.cases)], is_interactive=summary.is_interactive)
    return {
        "title": summary.name,
        "created": summary.created,
        "split": summary.split,
        "notes": summary.notes,
        "audit": summary.audit,
        "splits": tables.table_cells(summary.splits),
        "environment": tables.flat_rows(summary.environment),
        "evidence": summary.evidence,
        "verdict": " ".join(filter(None, [chance, overall_verdict(comparisons)])),
        "level": f"{comparisons[0].level * 100:g}",
        "subjects": comparisons[0].subjects,
        "fits": comparisons[0].cells,
        "seeds": comparisons[0].trainings,
        "margin": f"{comparisons[0].margin:.3g}",
        "equivalence_level": f"{comparisons[0].level * 200 - 100:g}",
        "margin_unit": unit if comparisons[0].primary in WITH_UNIT else "",
        "pairs": tables.comparison_rows(comparisons),
        "has_mcnemar": any(one.mcnemar for one in comparisons),
        "other_tests": _list_other_tests(comparisons),
        "finding_tests": tables.table_cells(tables.finding_rows(comparisons)),
        "details": [(one.first, one.second, tables.difference_rows(one, unit)) for one in comparisons],
        "rows": tables.metric_rows(summary.metrics, unit),
        "class_rows": tables.class_rows(summary.metrics, views.outcomes),
        "counts": tables.count_rows(summary.metrics),
        "columns": list(summary.metrics),
        "costs": tables.cost_rows(summary.costs),
        "cost_columns": list(summary.costs),
        "views": views,
        "cases": cases,
        "viewer": cases.viewer,
        "trainings": tables.table_cells(summary.trainings),
        **_setting_values(summary.configs),
        "hues": {name: 1 + place % len(SERIES) for name, place in colours.items()},
        **_figure_values(summary, colours),
    }


def _list_other_tests(comparisons: Sequence[Comparison]) -> str:
    """Return the tests, besides the bootstrap, that comparison.json holds of any pair."""
    tests = {"McNemar": "mcnemar", "DeLong": "delong", "Wilcoxon": "wilcoxon"}
    return ", ".join(
        name for name, key in tests.items() if any(getattr(one, key) is not None for one in comparisons)
    )


def _setting_values(configs: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of all models once, with a table of those that differ."""
    if len(configs) < 2:
        return {"configs": configs, "settings": None}
    shared, rows = tables.split_configs(configs)
    return {"configs": {"": shared}, "settings": tables.table_cells(rows)}


def _figure_values(summary: ComparisonSummary, colours: Mapping[str, int]) -> dict[str, Any]:
    """Return the figures of the page, and the values that their captions need."""
    comparisons = summary.comparisons
    label = metric_label(comparisons[0].primary, next(iter(summary.models.values()))[0].unit)
    classes = fits_of(Scores, *summary.models.values()) if summary.calibrations else None
    models = dict(zip(summary.models, classes or [], strict=False))
    return {
        "primary": label,
        "forest": forest_figure(
            summary.metrics,
            comparisons[0].primary,
            name="forest",
            title=f"{label} of each model",
            unit=comparisons[0].unit,
            colours=colours,
        ),
        "difference": difference_figure(comparisons, name="difference", title=f"Differences of {label}"),
        "temperature": tables.calibration_table(models, summary.calibrations) if models else None,
        "histories": learning_curve_figures(summary.histories, colours=colours),
    }
