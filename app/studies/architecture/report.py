"""Report the study of the architecture: its table, figures, page and recommendation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voxlift.app.config.commands import StudySettings
from voxlift.app.report.run_page import describe_task
from voxlift.app.report.study_page import StudyFigure, TextTable
from voxlift.app.report.tables import format_quantity
from voxlift.app.studies.architecture.advice import (
    describe_duplicates,
    describe_factors,
    describe_front,
    describe_spread,
    pareto_front,
    recommend,
)
from voxlift.app.studies.architecture.figures import draw_effects, draw_front
from voxlift.app.studies.architecture.points import BASE, COSTS, ArchitectureFindings, Variant
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.outputs import (
    CAPTION_DIFFERENCES,
    NOTE_INTERVAL,
    NOTE_SPLIT,
    StudyResults,
    describe_fixed,
    describe_scores,
    write_study_results,
)
from voxlift.app.studies.settings import read_values
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

NOTE_INIT = (
    "Inflated kernels (init centre, mean, acs) start from a slice model that was trained on the same "
    "subjects for as many epochs; their cost excludes its training. All others start from random weights."
)
NOTE_DESIGN = {
    "one_at_a_time": "One setting is changed at a time, so that the joint effect of two changes is not seen; "
    "study.design=grid shows it.",
    "grid": "Every combination of the values is trained.",
}


def report_architecture(settings: StudySettings, folder: StudyFolder, found: ArchitectureFindings) -> None:
    """Write all files of the study and print its recommendation."""
    study, trials = settings.study, select_finished(found.outcomes)
    points, scores = score_points(trials)
    margin = settings.verdict.margin
    variants = [variant for variant in found.variants if variant.label in points]
    from_best = compare_with_reference(scores, find_best(points), margin=margin)
    from_base = compare_with_reference(scores, BASE, margin=margin) if BASE in scores else {}
    labels = [variant.label for variant in variants]
    costs = [float(points[label].cost[study.cost]) for label in labels]
    front = [labels[i] for i in pareto_front([points[label].gain for label in labels], costs)]
    rows = [_build_row(variant, points[variant.label], from_base, front) for variant in variants]
    values = read_values(study.vary, where="study.vary")
    varied = [(key, ", ".join(map(str, options))) for key, options in values.items()]
    results = StudyResults(
        name=f"Architecture of {settings.model.name} on {describe_task(settings.data)}",
        recommendation=recommend(variants, points, from_best, cost=study.cost),
        findings=[
            describe_front(variants, front, points),
            *describe_factors(variants, points, from_base, cost=study.cost),
            describe_spread(points),
            *describe_duplicates(found.variants, found.duplicates),
            *found.failures,
            *describe_failures(found.outcomes),
        ],
        varied=[*varied, ("seed", ", ".join(map(str, study.seeds)))],
        fixed=describe_fixed(found.base, varied=list(values)),
        rows=rows,
        values={
            "front": front,
            "cost": study.cost,
            "same_network": {label: other.label for label, other in found.duplicates.items()},
        },
        drawings=_build_figures(variants, points, from_base, front, cost=study.cost),
        tables=[_build_score_table(rows, points), _build_cost_table(rows)],
        notes=[
            describe_scores(name_metric(points)),
            NOTE_INTERVAL,
            NOTE_SPLIT,
            NOTE_DESIGN[study.design],
            NOTE_INIT,
        ],
    )
    write_study_results(results, folder, trials=trials)


def _build_row(
    variant: Variant, point: PointScore, from_base: Mapping[str, PointDifference], front: Sequence[str]
) -> dict[str, Any]:
    """Return a variant's row of `table.csv`."""
    return {
        "variant": variant.label,
        "name": variant.name,
        "changes": " ".join(variant.overrides),
        **build_score_columns(point),
        **build_difference_columns(from_base.get(variant.label)),
        "on_front": variant.label in front,
        **{key: point.cost[key] for key in COSTS if key in point.cost},
    }


def _build_figures(
    variants: Sequence[Variant],
    points: Mapping[str, PointScore],
    from_base: Mapping[str, PointDifference],
    front: Sequence[str],
    *,
    cost: str,
) -> list[StudyFigure]:
    figures = [
        StudyFigure(
            "front",
            "Score against cost; each point is named by the value of the changed setting. "
            "Short bars: single seeds.",
            draw_front(variants, points, front, cost=cost),
        )
    ]
    if from_base:
        caption = (
            "Effect of every change on the score. Filled: better or worse than the base, by the interval and "
            "by the p-value adjusted over all changes (Holm); hollow: equivalent, or cannot tell."
        )
        figures.append(StudyFigure("effects", caption, draw_effects(variants, points, from_base)))
    return figures


def _build_score_table(rows: Sequence[Mapping[str, Any]], points: Mapping[str, PointScore]) -> TextTable:
    texts = [
        [
            str(row["name"]),
            *format_score_columns(row),
            *(format_difference_columns(row) if row["variant"] != BASE else [""] * len(DIFFERENCE_HEADINGS)),
        ]
        for row in rows
    ]
    headings = ("Network", *score_headings(points), *DIFFERENCE_HEADINGS)
    return TextTable(CAPTION_DIFFERENCES.format("base"), headings, texts)


def _build_cost_table(rows: Sequence[Mapping[str, Any]]) -> TextTable:
    keys = [key for key in COSTS if key in rows[0]]
    texts = [
        [
            str(row["name"]),
            "yes" if row["on_front"] else "",
            *(format_quantity(float(row[key]), COSTS[key][1]) for key in keys),
        ]
        for row in rows
    ]
    headings = ("Network", "on the front", *(COSTS[key][0] for key in keys))
    return TextTable("Costs, averaged over seeds.", headings, texts)
