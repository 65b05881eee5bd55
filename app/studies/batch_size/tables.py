"""The tables of the study of the batch size: rows for files, texts for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voxlift.app.report.quantities import format_quantity, format_value
from voxlift.app.report.study import TextTable
from voxlift.app.studies.batch_size.findings import BatchFindings
from voxlift.app.studies.batch_size.points import BatchPoint
from voxlift.app.studies.design import CAPTION_DIFFERENCES
from voxlift.app.studies.rows import (
    SCORE_HEADINGS,
    STANDING_HEADINGS,
    score_texts,
    score_values,
    standing_texts,
    standing_values,
)
from voxlift.app.studies.scoring import PointScore, Standing

PLAN = ("Batch", "equal", "scaling")  # columns that name a point


def point_row(point: BatchPoint, outcome: PointScore, standings: Mapping[str, Standing]) -> dict[str, Any]:
    """A point's row of `table.csv`: what was trained, what it scored, how it stands against the reference."""
    return {
        "point": point.label,
        "batch_size": point.batch_size,
        "equal": point.equal,
        "scaling": point.scaling,
        "learning_rate": point.learning_rate,
        "epochs": point.epochs,
        "steps": point.steps,
        **score_values(outcome),
        **standing_values(standings.get(point.label)),
        "train_seconds": outcome.cost["train_seconds"],
    }


def cost_row(size: int, accumulate: int, one: Mapping[str, Any]) -> dict[str, Any]:
    """A batch size's row of `cost.csv`: speed and memory of its steps."""
    return {
        "batch_size": size,
        "accumulate": accumulate,
        "volumes_per_step": size * accumulate,
        "volumes_per_second": one["volumes_per_second"],
        "steps_per_second": 1 / one["seconds_per_step"],
        "peak_memory_bytes": one["peak_memory_bytes"],
        "memory_before_bytes": one["before_bytes"],
        "step_noise": one["step_noise"],
    }


def score_table(rows: list[dict[str, Any]]) -> TextTable:
    """The scores of all points, for the page."""
    texts = [
        [
            *_plan_of(row),
            *score_texts(row),
            *(standing_texts(row) if row["equal"] != "both" else ["reference", "", "", ""]),
        ]
        for row in rows
    ]
    headings = (*PLAN, *SCORE_HEADINGS, *STANDING_HEADINGS)
    return TextTable(CAPTION_DIFFERENCES.format("reference"), headings, texts, len(PLAN))


def plan_table(rows: list[dict[str, Any]]) -> TextTable:
    """What was trained, for the page."""
    texts = [
        [
            *_plan_of(row),
            f"{row['learning_rate']:.3g}",
            str(row["epochs"]),
            str(row["steps"]),
            format_quantity(float(row["train_seconds"]), "s"),
        ]
        for row in rows
    ]
    headings = (*PLAN, "learning rate", "epochs", "steps", "training")
    return TextTable("What was trained; both: the reference, alike in epochs and steps.", headings, texts, 3)


def _plan_of(row: Mapping[str, Any]) -> list[str]:
    return [str(row["batch_size"]), row["equal"], row["scaling"]]


def cost_table(rows: list[dict[str, Any]]) -> TextTable:
    """What the steps of each batch size cost, for the page."""
    texts = [
        [
            str(row["batch_size"]),
            str(row["accumulate"]),
            str(row["volumes_per_step"]),
            f"{row['volumes_per_second']:.3g}",
            f"{row['steps_per_second']:.3g}",
            format_quantity(float(row["peak_memory_bytes"]), "B"),
            format_value(float(row["step_noise"])),
        ]
        for row in rows
    ]
    return TextTable(
        "Measured in a process of its own for each batch size; a step is one of the optimiser.",
        (
            "Batch",
            "accumulated",
            "volumes a step",
            "volumes/s",
            "steps/s",
            "peak memory",
            "SD of the loss",
        ),
        texts,
    )


def fit_table(found: BatchFindings) -> list[TextTable]:
    """Every size that the search for the largest batch has tried."""
    tried = sorted(found.memory.largest.tried, key=lambda pair: pair[0])
    words = {True: "fits", False: "does not fit", None: f"no answer: {found.memory.problem}"}
    rows = [[str(size), words[fits]] for size, fits in tried]
    return [TextTable("Search for the largest batch, every size in a child process.", ("Batch", ""), rows)]
