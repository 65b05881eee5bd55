"""Report the study of the batch size: its tables, figures, page and recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from voxlift.app.config.commands import StudySettings
from voxlift.app.report.run_page import describe_task
from voxlift.app.report.study_page import StudyFigure, TextTable
from voxlift.app.report.tables import format_quantity, format_value
from voxlift.app.studies.batch_size.advice import choose_point, describe_findings, recommend, select_fitting
from voxlift.app.studies.batch_size.figures import draw_cost, draw_scores, draw_stability
from voxlift.app.studies.batch_size.points import BatchFindings, BatchPoint
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.outputs import (
    CAPTION_DIFFERENCES,
    NOTE_INTERVAL,
    NOTE_SPLIT,
    StudyResults,
    describe_fixed,
    describe_load,
    describe_scores,
    write_study_results,
)
from voxlift.app.studies.trainings import (
    DIFFERENCE_HEADINGS,
    PointDifference,
    PointScore,
    build_difference_columns,
    build_score_columns,
    compare_with_reference,
    describe_failures,
    find_best,
    format_difference_columns,
    format_score_columns,
    name_metric,
    score_headings,
    score_points,
    select_finished,
)

VARIED = ("trainer.batch_size", "trainer.epochs", "optimizer.learning_rate")
POINT_HEADINGS = ("Batch", "equal", "scaling")


def report_batch_size(settings: StudySettings, folder: StudyFolder, found: BatchFindings) -> None:
    """Write all files of the study and print its recommendation."""
    trials = select_finished(found.outcomes)
    points, scores = score_points(trials)
    margin = settings.verdict.margin
    reference = next(point for point in found.points if point.equal == "both")
    candidates = select_fitting(found.points, found.memory.largest)
    at_equal_epochs = {p.label: points[p.label] for p in candidates if p.label in points}
    from_best = compare_with_reference(
        {label: scores[label] for label in at_equal_epochs}, find_best(at_equal_epochs), margin=margin
    )
    is_scored = reference.label in scores
    differences = compare_with_reference(scores, reference.label, margin=margin) if is_scored else {}
    chosen = choose_point(candidates, points, from_best, found.steps)
    has_worse = any(one.is_worse for one in from_best.values())
    rows = [
        build_point_row(point, points[point.label], differences.get(point.label))
        for point in found.points
        if point.label in points
    ]
    costs = [build_cost_row(size, settings.trainer.accumulate, one) for size, one in found.steps.items()]
    if (batch := found.accumulated) is not None:
        size = batch.batch_size // batch.microbatches
        costs.append(build_cost_row(size, batch.microbatches, batch.answer))
    results = StudyResults(
        name=f"Batch size of {settings.model.name} on {describe_task(settings.data)}",
        recommendation=recommend(chosen, points, found.steps, has_worse=has_worse),
        findings=[
            *describe_findings(found, points, differences, reference=reference),
            *describe_load([float(one["load_per_core"]) for one in found.steps.values()]),
            *describe_failures(found.outcomes),
        ],
        varied=_describe_varied(settings, found),
        fixed=describe_fixed(settings, varied=VARIED),
        rows=rows,
        more={"cost": costs},
        values={"memory": _build_memory_values(found), "noise": dict(found.noise)},
        drawings=_build_figures(settings, found, points),
        tables=[
            _build_score_table(rows, points),
            _build_point_table(rows),
            _build_cost_table(costs),
            _build_memory_table(found),
        ],
        notes=_build_notes(settings, found, name_metric(points)),
    )
    write_study_results(results, folder, trials=trials)


def build_point_row(
    point: BatchPoint, score: PointScore, difference: PointDifference | None
) -> dict[str, Any]:
    """Return a point's row of `table.csv`: the training, its score, and its difference from the reference."""
    return {
        "point": point.label,
        "batch_size": point.batch_size,
        "equal": point.equal,
        "scaling": point.scaling,
        "learning_rate": point.learning_rate,
        "epochs": point.epochs,
        "steps": point.steps,
        **build_score_columns(score),
        **build_difference_columns(difference),
        "train_seconds": score.cost["train_seconds"],
    }


def build_cost_row(size: int, accumulate: int, one: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch size's row of `cost.csv`: speed and memory of its steps."""
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


def _build_memory_values(found: BatchFindings) -> dict[str, Any]:
    """Return the block `memory` of `results.json`."""
    return {key: value for key, value in asdict(found.memory).items() if key != "largest"} | {
        "fits": found.memory.largest.fits,
        "fails": found.memory.largest.fails,
        "unanswered": found.memory.largest.unanswered,
    }


def _describe_varied(settings: StudySettings, found: BatchFindings) -> list[tuple[str, str]]:
    study, rate = settings.study, settings.optimizer.learning_rate
    rules = dict.fromkeys(point.scaling for point in found.points)
    length = f"equal {' and equal '.join(study.equal)}, {study.epochs} epochs for the reference"
    return [
        ("trainer.batch_size", ", ".join(map(str, found.steps))),
        ("optimizer.learning_rate", f"rules: {', '.join(rules)}; {rate:g} for the reference"),
        ("length of training", length),
        ("seed", ", ".join(map(str, study.seeds))),
    ]


def _build_figures(
    settings: StudySettings, found: BatchFindings, points: Mapping[str, PointScore]
) -> list[StudyFigure]:
    return [
        StudyFigure(
            "scores",
            f"Validation {name_metric(points)} with 95 % intervals over subjects; short bars: single seeds. "
            "The reference is in both panels.",
            draw_scores(found.points, points, settings.study.equal),
        ),
        StudyFigure(
            "cost",
            "Training speed (reading and augmentation included), and peak memory of the process or GPU.",
            draw_cost(found.steps, found.accumulated, found.memory),
        ),
        StudyFigure(
            "stability",
            "Left: standard deviation of the loss between steps, without its trend. Right: gradient noise "
            "scale with 95 % jackknife intervals.",
            draw_stability(found.steps, found.noise),
        ),
    ]


def _build_score_table(rows: list[dict[str, Any]], points: Mapping[str, PointScore]) -> TextTable:
    texts = [
        [
            *_format_point(row),
            *format_score_columns(row),
            *(format_difference_columns(row) if row["equal"] != "both" else ["reference", "", "", ""]),
        ]
        for row in rows
    ]
    headings = (*POINT_HEADINGS, *score_headings(points), *DIFFERENCE_HEADINGS)
    return TextTable(CAPTION_DIFFERENCES.format("reference"), headings, texts, len(POINT_HEADINGS))


def _build_point_table(rows: list[dict[str, Any]]) -> TextTable:
    texts = [
        [
            *_format_point(row),
            f"{row['learning_rate']:.3g}",
            str(row["epochs"]),
            str(row["steps"]),
            format_quantity(float(row["train_seconds"]), "s"),
        ]
        for row in rows
    ]
    headings = (*POINT_HEADINGS, "learning rate", "epochs", "steps", "training")
    caption = "Trainings; both: the reference, with the same epochs and steps."
    return TextTable(caption, headings, texts, len(POINT_HEADINGS))


def _format_point(row: Mapping[str, Any]) -> list[str]:
    """Return the texts below `POINT_HEADINGS`."""
    return [str(row["batch_size"]), row["equal"], row["scaling"]]


def _build_cost_table(rows: list[dict[str, Any]]) -> TextTable:
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
    caption = "Each batch size is measured in a process of its own; a step is one of the optimiser."
    speed = ("volumes per step", "volumes/s", "steps/s")
    return TextTable(caption, ("Batch", "accumulated", *speed, "peak memory", "SD of the loss"), texts)


def _build_memory_table(found: BatchFindings) -> TextTable:
    tried = sorted(found.memory.largest.tried, key=lambda pair: pair[0])
    words = {True: "fits", False: "does not fit", None: f"no answer: {found.memory.problem}"}
    rows = [[str(size), words[fits]] for size, fits in tried]
    return TextTable("Search for the largest batch, every size in a child process.", ("Batch", ""), rows)


def _build_notes(settings: StudySettings, found: BatchFindings, metric: str) -> list[str]:
    study = settings.study
    return [
        describe_scores(metric),
        NOTE_INTERVAL,
        NOTE_SPLIT,
        (
            "Equal steps: the number of epochs and the warm-up follow the batch size, so that every training "
            "has the same learning rate at the same share of its steps."
        ),
        (
            f"Speed is the median of {study.timed_steps} training steps after two that are not counted; a "
            "step of accumulated gradients includes all of its microbatches."
        ),
        (
            f"The largest batch: {found.memory.how}; two steps on random voxels must finish "
            f"within {study.fit_seconds:g} s, and only a process that ran out of memory counts as one "
            "that does not fit."
        ),
        (
            f"Gradient noise scale: from the gradients of {study.noise_batches} batches of "
            f"{settings.trainer.batch_size} (McCandlish et al. 2018, arXiv:1812.06162), with augmentation, "
            "dropout and batch statistics as in training; after training means the best weights of the "
            "reference's first seed."
        ),
    ]
