"""A template, filled and written as one self-contained file."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from voxlift.app.evaluation.calibration import apply_temperature
from voxlift.app.evaluation.metrics import metric_label
from voxlift.app.evaluation.scores import Scores
from voxlift.app.evaluation.verdict import run_verdict
from voxlift.app.files import write_beside
from voxlift.app.report import tables
from voxlift.app.report.cases import case_picture
from voxlift.app.report.figures import (
    calibration_figure,
    history_figure,
    history_panels,
    precision_recall_figure,
    roc_figure,
)
from voxlift.app.report.formatting import format_value
from voxlift.app.report.summary import Case, ComparisonSummary, Row, RunSummary


def write_page(template: str, path: Path, values: Mapping[str, Any]) -> Path:
    """Write a page (UTF-8, no script, nothing loaded from elsewhere), whole or not at all; its path.

    Raises:
        OSError: naming the path, such as on a full disk.
    """
    environment = Environment(
        loader=PackageLoader("voxlift.app.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(values).encode()
    write_beside(path, lambda file: file.write(page))
    return path


def now() -> str:
    """The time that stands on a page, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M")


MOST_CURVES = 6  # more bands in one figure cannot be told apart
MOST_CLASSES = 12  # whose curves are drawn: a page with many more is a picture book


def write_run_report(summary: RunSummary, path: Path) -> Path:
    """Write the page of one run and return its path; UTF-8, no script, nothing loaded from elsewhere."""
    return write_page("run.html.j2", path, run_page_values(summary))


def run_page_values(summary: RunSummary) -> dict[str, Any]:
    """Everything that the template of a run needs."""
    scores = summary.scores.get(summary.split)
    block = summary.metrics.get(summary.split, {})
    classes = scores.classes if scores is not None else ()
    return shared(summary) | {
        "verdict": run_verdict(block, name=summary.name, split=summary.split),
        "rows": tables.metric_rows(summary.metrics),
        "class_rows": tables.class_rows(summary.metrics, classes),
        "counts": tables.count_rows(summary.metrics),
        "columns": list(summary.metrics),
        "costs": tables.cost_rows({summary.name: summary.cost}),
        "cost_columns": [],
        "curves": _run_curves(scores, summary.split),
        "curves_left_out": drawn_classes(scores)[1] if scores else 0,
        "confusions": [(summary.name, scores.classes, tables.confusion_rows([scores]))] if scores else [],
        "calibration": _run_calibration(summary),
        "temperature": _temperature_rows(summary),
        "is_binary": scores is None or scores.is_binary,
        "histories": history_figures({summary.name: summary.history}),
        "cases": [
            ("Surest and wrong", _cases(summary.worst)),
            ("Surest and right", _cases(summary.surest)),
        ],
        "has_maps": any(case.maps for case in (*summary.worst, *summary.surest)),
        "configs": {"": summary.config} if summary.config else {},
    }


def shared(summary: RunSummary | ComparisonSummary) -> dict[str, Any]:
    """What both templates need."""
    return {
        "title": summary.name,
        "created": summary.created,
        "split": summary.split,
        "notes": summary.notes,
        "audit": summary.audit,
        "splits": show_table(summary.splits),
        "environment": tables.named_rows(summary.environment),
    }


def show_table(rows: Sequence[Row]) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Headings, and cells as (text, whether it is a number)."""
    headings = list(rows[0]) if rows else []
    body = [
        [(format_value(row.get(heading)), isinstance(row.get(heading), int | float)) for heading in headings]
        for row in rows
    ]
    return headings, body


def drawn_classes(scores: Scores) -> tuple[list[int], int]:
    """Classes whose curves are drawn, in index order, and how many are left out, the rarest; two are one."""
    if scores.is_binary:
        return ([1] if 0 < scores.labels.sum() < len(scores) else []), 0
    counts = np.bincount(scores.labels, minlength=len(scores.classes))
    known = [int(k) for k in np.argsort(-counts, kind="stable") if 0 < counts[k] < len(scores)]
    return sorted(known[:MOST_CLASSES]), len(known[MOST_CLASSES:])


def _run_curves(scores: Scores | None, split: str) -> list[tuple[str, Markup]]:
    if scores is None:
        return []
    known, _ = drawn_classes(scores)
    figures = -(-len(known) // MOST_CURVES)
    found = []
    for group in np.array_split(known, max(1, figures)):
        series = {scores.classes[k]: (scores, int(k)) for k in group}
        what = f"{split}, {next(iter(series))} to {list(series)[-1]}" if figures > 1 else split
        found += both_curves(series, what, key=group[0]) if series else []
    return found


def both_curves(
    series: Mapping[str, tuple[Scores, int]], what: str, *, key: object, mark: bool = True
) -> list[tuple[str, Markup]]:
    """The ROC and the precision-recall curve of each series, with captions.

    Args:
        series: Name to scores and the class that is told from the rest.
        what: For the captions.
        key: Tells these figures from the page's others; the names `-1` and `1` would look alike in an id.
        mark: Whether the decision threshold is drawn.
    """
    return [
        (f"ROC, {what}", roc_figure(series, name=f"roc-{key}", title=f"ROC curve, {what}", mark=mark)),
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


def _temperature_rows(summary: RunSummary) -> tables.CalibrationTable | None:
    scores = summary.scores.get(summary.split)
    if scores is None or summary.temperature is None:
        return None
    return tables.calibration_table({"": [scores]}, {"": [summary.temperature.value]})


def history_figures(histories: Mapping[str, Sequence[Row]]) -> list[Markup]:
    """Loss and the followed metric over epochs, a figure each."""
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
