"""The page of the study of the batch size: what it says and shows, and how it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from voxlift.app.report.study import Drawing
from voxlift.app.runs.datanotes import spoken_task
from voxlift.app.settings.studies import StudySettings
from voxlift.app.studies.batch_size.advice import choose_point, explain_findings, fitting_points, recommend
from voxlift.app.studies.batch_size.figures import draw_cost, draw_scores, draw_stability
from voxlift.app.studies.batch_size.findings import BatchFindings
from voxlift.app.studies.batch_size.tables import (
    cost_row,
    cost_table,
    fit_table,
    plan_table,
    point_row,
    score_table,
)
from voxlift.app.studies.design import (
    NOTE_AUC,
    NOTE_INTERVAL,
    NOTE_SPLIT,
    describe_fixed,
    say_load,
)
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.outputs import Written, environment_of, write_study
from voxlift.app.studies.scoring import PointScore, best_label, read_points, stand_against
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
