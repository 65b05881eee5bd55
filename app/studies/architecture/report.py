"""Table, figures and page of the study of the architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voxlift.app.config.commands import StudySettings
from voxlift.app.report.formatting import format_quantity
from voxlift.app.report.run_page import spoken_task
from voxlift.app.report.study_page import Drawing, TextTable
from voxlift.app.studies.architecture.advice import (
    UNITS,
    explain_factors,
    pareto_front,
    recommend,
    say_certainty,
    say_front,
)
from voxlift.app.studies.architecture.figures import draw_effects, draw_front
from voxlift.app.studies.architecture.networks import say_twins
from voxlift.app.studies.architecture.points import BASE, ArchitectureFindings, Variant
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.outputs import (
    CAPTION_DIFFERENCES,
    NOTE_AUC,
    NOTE_INTERVAL,
    NOTE_SPLIT,
    Written,
    describe_fixed,
    environment_of,
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
from voxlift.app.studies.space import read_values
from voxlift.app.studies.trainings import finished_trials, say_failures

NOTE_INIT = (
    "Inflated kernels (init centre, mean, acs) start from a slice model that was trained on the same "
    "subjects for as many epochs; its training is not in their cost. All others start from random weights."
)
NOTE_DESIGN = {
    "one_at_a_time": "One setting is changed at a time, so that what two changes do together is not seen; "
    "study.design=grid does.",
    "grid": "Every combination of the values is trained.",
}


def report_architecture(settings: StudySettings, folder: StudyFolder, found: ArchitectureFindings) -> None:
    """Write all that the study leaves, and print its recommendation."""
    study, trials = settings.study, finished_trials(found.outcomes)
    points, scores = read_points(trials)
    variants = [variant for variant in found.variants if variant.label in points]
    best = stand_against(scores, best_label(points))
    against_base = stand_against(scores, BASE) if BASE in scores else {}
    labels = [variant.label for variant in variants]
    costs = [float(points[label].cost[study.cost]) for label in labels]
    front = [labels[i] for i in pareto_front([points[label].auc for label in labels], costs)]
    rows = [_row(variant, points[variant.label], against_base, front) for variant in variants]
    values = read_values(study.vary, where="study.vary")
    effects = [
        Drawing(
            "effects",
            "What every change does to the score. Full: told apart from the base, by the interval and by the "
            "p-value adjusted over all changes (Holm); hollow: not told apart.",
            draw_effects(variants, points, against_base),
        )
    ]
    written = Written(
        name=f"Architecture of {settings.model.name} on {spoken_task(settings.data)}",
        recommendation=recommend(variants, points, best, cost=study.cost),
        findings=[
            say_front(variants, front, points),
            *explain_factors(variants, points, against_base, cost=study.cost),
            say_certainty(points),
            *say_twins(found.variants, found.twins),
            *found.refusals,
            *say_failures(found.outcomes),
        ],
        varied=[
            *((key, ", ".join(map(str, options))) for key, options in values.items()),
            ("seed", ", ".join(map(str, study.seeds))),
        ],
        fixed=describe_fixed(found.base, varied=list(values)),
        rows=rows,
        values={
            "front": front,
            "cost": study.cost,
            "same_network": {label: twin.label for label, twin in found.twins.items()},
        },
        drawings=[
            Drawing(
                "front",
                "Score against cost; each point is named by the value of the setting that was changed. "
                "Short bars: single seeds.",
                draw_front(variants, points, front, cost=study.cost),
            ),
            *(effects if against_base else []),
        ],
        tables=[_score_table(rows), _cost_table(rows)],
        notes=[NOTE_AUC, NOTE_INTERVAL, NOTE_SPLIT, NOTE_DESIGN[study.design], NOTE_INIT],
    )
    write_study(written, folder, environment=environment_of(trials))


def _row(
    variant: Variant, point: PointScore, against_base: Mapping[str, Standing], front: Sequence[str]
) -> dict[str, Any]:
    return {
        "variant": variant.label,
        "name": variant.name,
        "changes": " ".join(variant.overrides),
        **score_values(point),
        **standing_values(against_base.get(variant.label)),
        "on_front": variant.label in front,
        **{key: point.cost[key] for key in UNITS if key in point.cost},
    }


def _score_table(rows: Sequence[Mapping[str, Any]]) -> TextTable:
    texts = [
        [
            str(row["name"]),
            *score_texts(row),
            *(standing_texts(row) if row["variant"] != BASE else [""] * len(STANDING_HEADINGS)),
        ]
        for row in rows
    ]
    headings = ("Network", *SCORE_HEADINGS, *STANDING_HEADINGS)
    return TextTable(CAPTION_DIFFERENCES.format("base"), headings, texts)


def _cost_table(rows: Sequence[Mapping[str, Any]]) -> TextTable:
    keys = [key for key in UNITS if key in rows[0]]
    texts = [
        [
            str(row["name"]),
            "yes" if row["on_front"] else "",
            *(format_quantity(float(row[key]), UNITS[key][1]) for key in keys),
        ]
        for row in rows
    ]
    headings = ("Network", "on the front", *(UNITS[key][0] for key in keys))
    return TextTable("Costs, averaged over seeds.", headings, texts)
