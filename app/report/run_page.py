"""Write the page of one run: read the files of its folder, and lay them out as `report.html`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from voxlift.app.config import DataSettings, TrainSettings
from voxlift.app.evaluation.calibration import apply_temperature
from voxlift.app.evaluation.scores import Scores, with_threshold
from voxlift.app.evaluation.verdict import run_verdict
from voxlift.app.files import read_json, read_rows
from voxlift.app.report import tables
from voxlift.app.report.cases import Case, case_picture, pick_cases
from voxlift.app.report.dataset_audit import describe_data
from voxlift.app.report.figures import (
    MAX_CURVES,
    CaptionedFigure,
    calibration_figure,
    curve_figures,
    learning_curve_figures,
    select_classes,
)
from voxlift.app.report.html import timestamp, write_page
from voxlift.app.report.tables import Row
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.results import read_history

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort


@dataclass(frozen=True, eq=False)
class RunSummary:
    """Everything that the page of a finished run shows.

    Attributes:
        name: Heading of the page, such as `volume3d on nodule`.
        metrics: Split (`val`, `test`) to its block of metrics.json.
        scores: Split to its scores, from which the curves are drawn; empty leaves the figures out.
        split: Split of the verdict and the figures.
        history: One row per epoch, with `val_` before the validation columns; numbers or their text.
        splits: Rows of the table of splits (how many volumes of each class in each).
        config: Resolved configuration as YAML text.
        environment: Versions, device, precision; nested mappings are shown as `a.b`.
        cost: Any of `parameters`, `flops`, `seconds_per_epoch`, `seconds_per_volume`, `peak_memory_bytes`,
            or others.
        temperature: Fitted on validation, as metrics.json holds it; None leaves its effect out.
        errors: Wrong decisions with the highest predicted probability.
        correct: Correct decisions with the highest predicted probability.
        audit: Findings of the data audit, one sentence each; None where no audit was made.
        notes: Further sentences for the reader, such as how many rows were left out.
        created: Date and time, as text.
    """

    name: str
    metrics: Mapping[str, Mapping[str, object]]
    scores: Mapping[str, Scores] = field(default_factory=dict)
    split: str = "test"
    history: Sequence[Row] = ()
    splits: Sequence[Row] = ()
    config: str = ""
    environment: Mapping[str, object] = field(default_factory=dict)
    cost: Mapping[str, object] = field(default_factory=dict)
    temperature: float | None = None
    errors: Sequence[Case] = ()
    correct: Sequence[Case] = ()
    audit: Sequence[str] | None = None
    notes: Sequence[str] = ()
    created: str = ""


def write_run_page(
    run: RunFolder,
    settings: TrainSettings,
    *,
    cohort: Cohort,
    scores: Mapping[str, Scores],
    metrics: Mapping[str, Any],
    network: Any | None = None,  # noqa: ANN401 - untyped Keras
) -> Path:
    """Write `report.html` of a run and return its path.

    Args:
        run: Folder of the run, whose other files except metrics.json are written already.
        settings: Settings of the run.
        cohort: The cohort whose volumes are shown.
        scores: Scores of each split.
        metrics: Content of its metrics.json.
        network: Network for Grad-CAM over them; None shows them without.
    """
    threshold = metrics["threshold"]
    if threshold is not None:
        scores = {name: with_threshold(one, threshold) for name, one in scores.items()}
    split = "test" if "test" in scores else "val"
    errors, correct = pick_cases(scores[split], cohort, network)
    summary = RunSummary(
        name=f"{settings.model.name} on {describe_task(settings.data)}",
        metrics=metric_blocks(metrics),
        scores=scores,
        split=split,
        history=read_history(run),
        splits=count_splits(run),
        config=run.config.read_text(encoding="utf-8"),
        environment=read_json(run.environment),
        cost=metrics["cost"],
        temperature=float(metrics["calibration"]["temperature"]),
        errors=errors,
        correct=correct,
        audit=describe_data(run, settings),
        notes=_notes(cohort, metrics),
        created=timestamp(),
    )
    return render_run_page(summary, run.report)


def metric_blocks(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of the page's table: val and test of metrics.json, then test per subject."""
    blocks = {name: metrics[name] for name in ("val", "test") if name in metrics}
    by_subject = metrics.get("by_subject", {})
    return blocks | {f"{name}, per subject": block for name, block in by_subject.items() if name == "test"}


def count_splits(run: RunFolder) -> list[dict[str, object]]:
    """Return the rows of the table of splits: volumes of each class in each split."""
    counts = Counter((row["split"], row["label"]) for row in read_rows(run.splits))
    return [{"split": split, "class": label, "volumes": n} for (split, label), n in counts.items()]


def describe_task(data: DataSettings) -> str:
    """Return what is predicted, for a heading: the phantom task, or the label column of a table.

    >>> describe_task(DataSettings(name="manifest", label_column="territory"))
    'territory'
    """
    return data.task or (data.label_column if data.name == "manifest" else None) or data.name


def _notes(cohort: Cohort, metrics: Mapping[str, Any]) -> list[str]:
    notes = []
    threshold, reason = metrics.get("threshold"), metrics.get("threshold_reason")
    if threshold is not None:
        positive = cohort.classes[1]
        notes.append(
            f"Decision rule: {positive} where its predicted probability is at least {threshold:.3f}. "
            f"Threshold: {reason}."
        )
    elif reason and len(cohort.classes) == 2:
        notes.append(f"Decision threshold: {reason}.")
    if cohort.left_out:
        notes.append(
            f"{len(cohort.left_out)} unusable file(s) were left out; left_out.csv lists them with the reason."
        )
    return notes


def render_run_page(summary: RunSummary, path: Path) -> Path:
    """Write the summary of a run as one HTML file and return its path."""
    return write_page("run.html.j2", path, run_page_values(summary))


def run_page_values(summary: RunSummary) -> dict[str, Any]:
    """Return everything that the template of a run needs."""
    scores = summary.scores.get(summary.split)
    block = summary.metrics.get(summary.split, {})
    classes = scores.classes if scores is not None else ()
    return {
        "title": summary.name,
        "created": summary.created,
        "split": summary.split,
        "notes": summary.notes,
        "audit": summary.audit,
        "splits": tables.table_cells(summary.splits),
        "environment": tables.flat_rows(summary.environment),
        "verdict": run_verdict(block, name=summary.name, split=summary.split),
        "rows": tables.metric_rows(summary.metrics),
        "class_rows": tables.class_rows(summary.metrics, classes),
        "counts": tables.count_rows(summary.metrics),
        "columns": list(summary.metrics),
        "costs": tables.cost_rows({summary.name: summary.cost}),
        "cost_columns": [],
        "curves": _curves(scores, summary.split) if scores else [],
        "curves_left_out": select_classes(scores)[1] if scores else 0,
        "confusions": [(summary.name, classes, tables.confusion_rows([scores]))] if scores else [],
        "is_binary": scores is None or scores.is_binary,
        "histories": learning_curve_figures({summary.name: summary.history}),
        "cases": [
            ("Errors with the highest predicted probability", _pictures(summary.errors)),
            ("Correct decisions with the highest predicted probability", _pictures(summary.correct)),
        ],
        "has_maps": any(case.maps for case in (*summary.errors, *summary.correct)),
        "configs": {"": summary.config} if summary.config else {},
        **_calibration(scores, summary.temperature),
    }


def _curves(scores: Scores, split: str) -> list[CaptionedFigure]:
    """Return the ROC and precision-recall curves, at most six classes in one figure."""
    known, _ = select_classes(scores)
    figures = -(-len(known) // MAX_CURVES)
    found = []
    for group in np.array_split(known, figures) if figures else []:
        names = [scores.classes[k] for k in group]
        series = {name: (scores, int(k)) for name, k in zip(names, group, strict=True)}
        what = f"each class against the rest ({', '.join(names)})"
        if scores.is_binary:
            what = f"probability of {names[0]}"
        found += curve_figures(series, f"{split} split: {what}", key=group[0])
    return found


def _calibration(scores: Scores | None, temperature: float | None) -> dict[str, Any]:
    if scores is None:
        return {"calibrations": [], "temperature": None}
    series, table = {"as predicted": scores}, None
    if temperature is not None:
        series["temperature-scaled"] = apply_temperature(scores, temperature)
        table = tables.calibration_table({"": [scores]}, {"": [temperature]})
    return {
        "calibrations": [calibration_figure(series, name="calibration", title="Calibration")],
        "temperature": table,
    }


def _pictures(cases: Sequence[Case]) -> list[tuple[Case, str]]:
    return [(case, case_picture(case)) for case in cases]
