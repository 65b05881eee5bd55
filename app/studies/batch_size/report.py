"""The page of the study of the batch size: what it says and shows, and how it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from voxlift.app.config.commands import StudySettings
from voxlift.app.report.formatting import format_quantity, format_value
from voxlift.app.report.run_page import spoken_task
from voxlift.app.report.study_page import Drawing, TextTable
from voxlift.app.studies.batch_size.advice import choose_point, explain_findings, fitting_points, recommend
from voxlift.app.studies.batch_size.figures import draw_cost, draw_scores, draw_stability
from voxlift.app.studies.batch_size.points import BatchFindings, BatchPoint
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.outputs import (
    CAPTION_DIFFERENCES,
    NOTE_AUC,
    NOTE_INTERVAL,
    NOTE_SPLIT,
    Written,
    describe_fixed,
    environment_of,
    say_load,
    write_study,
)
from voxlift.app.studies.scoring import (
    SCORE_HEADINGS,
    STANDING_HEADINGS,
    PointScore,
    Standing,
    best_label,
    read_points,
    score_texts,
    score_values,
    stand_against,
    standing_texts,
    standing_values,
)
from voxlift.app.studies.trainings import finished_trials, say_failures

VARIED = ("trainer.batch_size", "trainer.epochs", "optimizer.learning_rate")


def report_batch_size(settings: StudySettings, folder: StudyFolder, found: BatchFindings) -> None:
    """Write all that the study leaves, and print its recommendation."""
    outcomes, scores = read_points(finished_trials(found.outcomes))
    reference = next(point for point in found.points if point.equal == "both")
    candidates = fitting_points(found.points, found.memory.largest)
    at_equal_epochs = {p.label: outcomes[p.label] for p in candidates if p.label in outcomes}
    best = stand_against({label: scores[label] for label in at_equal_epochs}, best_label(at_equal_epochs))
    standings = stand_against(scores, reference.label) if reference.label in scores else {}
    chosen = choose_point(candidates, outcomes, best, found.steps)
    is_told = any(one.is_worse for one in best.values())
    rows = [
        point_row(point, outcomes[point.label], standings)
        for point in found.points
        if point.label in outcomes
    ]
    cost_rows = [cost_row(size, settings.trainer.accumulate, one) for size, one in found.steps.items()]
    if (cut := found.portioned) is not None:
        cost_rows.append(cost_row(cut.batch_size // cut.portions, cut.portions, cut.answer))
    written = Written(
        name=f"Batch size of {settings.model.name} on {spoken_task(settings.data)}",
        recommendation=recommend(chosen, outcomes, found.steps, is_told=is_told),
        findings=[
            *explain_findings(found, outcomes, standings, reference=reference),
            *say_load([float(one["load_per_core"]) for one in found.steps.values()]),
            *say_failures(found.outcomes),
        ],
        varied=_varied(settings, found),
        fixed=describe_fixed(settings, varied=VARIED),
        rows=rows,
        more={"cost": cost_rows},
        values={"memory": _memory_values(found), "noise": dict(found.noise)},
        drawings=_drawings(settings, found, outcomes),
        tables=[score_table(rows), plan_table(rows), cost_table(cost_rows), *fit_table(found)],
        notes=_notes(settings, found),
    )
    write_study(written, folder, environment=environment_of(finished_trials(found.outcomes)))


def _memory_values(found: BatchFindings) -> dict[str, Any]:
    return {key: value for key, value in asdict(found.memory).items() if key != "largest"} | {
        "fits": found.memory.largest.fits,
        "fails": found.memory.largest.fails,
        "unanswered": found.memory.largest.unanswered,
    }


def _varied(settings: StudySettings, found: BatchFindings) -> list[tuple[str, str]]:
    rules = dict.fromkeys(point.scaling for point in found.points)
    return [
        ("trainer.batch_size", ", ".join(map(str, found.steps))),
        (
            "optimizer.learning_rate",
            f"rules: {', '.join(rules)}; {settings.optimizer.learning_rate:g} at the reference",
        ),
        (
            "length of training",
            (
                f"equal {' and equal '.join(settings.study.equal)}, {settings.study.epochs} epochs at the "
                "reference"
            ),
        ),
        ("seed", ", ".join(map(str, settings.study.seeds))),
    ]


def _drawings(
    settings: StudySettings, found: BatchFindings, outcomes: Mapping[str, PointScore]
) -> list[Drawing]:
    return [
        Drawing(
            "scores",
            "Validation AUC with 95 % intervals over subjects; short bars: single seeds. The reference is in "
            "both panels.",
            draw_scores(found.points, outcomes, settings.study.equal),
        ),
        Drawing(
            "cost",
            "Training speed (reading and augmentation included), and the peak memory of the process or GPU.",
            draw_cost(found.steps, found.portioned, found.memory),
        ),
        Drawing(
            "stability",
            "Left: how much the loss varies from step to step, its trend left out. Right: gradient noise "
            "scale with 95 % jackknife intervals.",
            draw_stability(found.steps, found.noise),
        ),
    ]


def _notes(settings: StudySettings, found: BatchFindings) -> list[str]:
    study = settings.study
    return [
        NOTE_AUC,
        NOTE_INTERVAL,
        NOTE_SPLIT,
        (
            "Equal steps: the number of epochs follows the batch size, and so does the warm-up, so that "
            "every training sees the same learning rate at the same share of its steps."
        ),
        (
            f"Speed is the median of {study.timed_steps} training steps after two that are not counted; a "
            "step of accumulated gradients is all of its portions."
        ),
        (
            f"The largest batch: {found.memory.how}; two steps on noise of the right shape have to pass "
            f"within {study.fit_seconds:g} s, and only a process that ended for want of memory counts as one "
            "that does not fit."
        ),
        (
            f"Gradient noise scale: from the gradients of {study.noise_batches} batches of "
            f"{settings.trainer.batch_size} (McCandlish et al. 2018, arXiv:1812.06162), with augmentation, "
            "dropout and batch statistics as in training; after training means the best weights of the "
            "reference's first seed."
        ),
    ]


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
