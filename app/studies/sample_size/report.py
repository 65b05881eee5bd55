"""Report the study of the sample size: its sentence, table, figures and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voxlift.app.config.commands import StudySettings
from voxlift.app.report.study_page import StudyFigure, TextTable
from voxlift.app.report.tables import show_path
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.outputs import StudyResults, write_study_results
from voxlift.app.studies.sample_size.figures import draw_power, draw_width, subject_grid
from voxlift.app.studies.sample_size.plan import POWERS, Need, PairPlan, find_need, find_width

COUNTS = ("n_per_class", "n_per_class_low", "n_per_class_high", "n_in_all")  # columns of numbers of subjects
SHARES = (0.5, 1.0, 2.0)  # of the margin, for the table
NOTE_DELONG = (
    "The variance of the difference is DeLong's, paired, on the comparison's own test scores. With folds it "
    "is taken within each fold, and the subjects are those of all folds together; scores of different folds "
    "are not pooled."
)
NOTE_BOOTSTRAP = (
    "Intervals are 95 %, from a bootstrap of the comparison's subjects within each class. With few subjects "
    "the variance is poorly known, and so is the number."
)
NOTE_PLANNED = (
    "The variance of the difference follows from normal scores with equal variances in both classes and the "
    "expected AUCs and correlation. It has no interval: it is as good as the expectations."
)
NOTE_TEST = (
    "The numbers are test subjects; the training set is as large as it was. A difference that grows with "
    "more training subjects is not taken into account: study=learning_curve shows whether it does."
)
NOTE_POWER = (
    "The power is that of the two-sided test at level {alpha:.3g}, if the models differ by just the margin."
)
NOTE_SEEDS = (
    "Each model was trained with {seeds} seeds. The variance between their differences does not fall with "
    "the number of subjects; Student's t accounts for how few seeds estimate it."
)
NOTE_ONE_SEED = (
    "Each model was trained with one seed: the trainings are held fixed, and the numbers are for these two "
    "networks. The spread between seeds is not known and would add to them."
)


def report_sample_size(settings: StudySettings, folder: StudyFolder, plans: Sequence[PairPlan]) -> None:
    """Write all files of the study and print its sentence.

    Args:
        settings: Of the study.
        folder: Folder of the study.
        plans: One per pair of models.
    """
    hardest = max(plans, key=_count_needed)
    first, grid = plans[0], subject_grid(plans)
    results = StudyResults(
        name=f"Subjects for {first.name}" if len(plans) == 1 else "Subjects for each pair of models",
        recommendation=recommend(hardest),
        findings=[sentence for plan in plans for sentence in describe_plan(plan)],
        varied=[("subjects of each class", f"{grid[0]:.0f} to {grid[-1]:.0f}")],
        fixed=[
            ("verdict.margin", f"{first.margin:g}"),
            ("level of the test", f"{first.alpha:.3g}"),
            ("prevalence", f"{first.prevalence:.3g}"),
            ("source", show_path(settings.run, folder.path) if settings.run else "planned values"),
        ],
        rows=[row for plan in plans for row in build_rows(plan)],
        more={"widths": [row for plan in plans for row in build_width_rows(plan, plans)]},
        values=build_values(hardest),
        drawings=build_figures(plans),
        tables=[_build_table(plans)],
        notes=build_notes(first),
        shown=("study", "run", "verdict"),
    )
    write_study_results(results, folder)


def _count_needed(plan: PairPlan) -> float:
    need = find_need(plan, POWERS[0])
    return float("inf") if need.per_class is None else need.per_class


def recommend(plan: PairPlan) -> str:
    """Return one sentence: the subjects of each class for 80 and 90 % power, or the missing seeds."""
    needs = [find_need(plan, power) for power in POWERS]
    aim = f"To find a difference of {plan.margin:g} in ROC AUC between {plan.name}"
    if needs[0].per_class is None:
        return f"{aim}, {describe_seeds(plan, needs[0])}."
    parts = [f"{_describe_need(need)} for {100 * need.power:.0f} % power" for need in needs if need.per_class]
    more = f"; {describe_seeds(plan, needs[1])}" if needs[1].per_class is None else ""
    return f"{aim} takes {' and '.join(parts)}{more}."


def describe_seeds(plan: PairPlan, need: Need) -> str:
    """Return that the spread between seeds forbids a power, and the seeds that allow it."""
    spread = plan.variance.between_seeds**0.5
    text = (
        f"no number of subjects gives {100 * need.power:.0f} % power with {plan.variance.seeds} seeds: the "
        f"difference varies between them by {spread:.3f} (SD)"
    )
    if need.seeds is None:
        return f"{text}, and no practicable number of seeds averages that out"
    return (
        f"{text}. With {need.seeds} seeds it takes about {need.per_class_with_seeds} subjects of each class"
    )


def _describe_need(need: Need) -> str:
    interval = "" if need.low is None else f" (95 % interval {need.low} to {need.high})"
    return f"about {need.per_class} test subjects of each class{interval}"


def describe_plan(plan: PairPlan) -> list[str]:
    """Return what the present comparison can show, and the subjects at its prevalence and splits."""
    sentences = []
    if plan.present and plan.power_now is not None:
        positives, negatives = plan.present
        sentences.append(
            f"{plan.name}: with the present {positives} positive and {negatives} negative test subjects the "
            f"power is {100 * plan.power_now:.0f} %, and the 95 % interval is {plan.width_now:.3f} wide."
        )
    need = find_need(plan, POWERS[0])
    if need.in_all is not None:
        sentences.append(
            f"{plan.name}: at a prevalence of {plan.prevalence:.2f}, 80 % power takes {need.in_all} test "
            "subjects in all. With folds every subject is a test subject; with splits.test=0.2 it takes "
            f"{5 * need.in_all} subjects."
        )
    return sentences


def build_rows(plan: PairPlan) -> list[dict[str, Any]]:
    """Return a row of `table.csv` for each power and each of half, one and two margins."""
    rows = []
    for share in SHARES:
        scaled = PairPlan(**{**vars(plan), "margin": share * plan.margin})
        for power in POWERS:
            need = find_need(scaled, power)
            rows.append(
                {
                    "first": plan.first,
                    "second": plan.second,
                    "difference": scaled.margin,
                    "power": power,
                    "n_per_class": need.per_class,
                    "n_per_class_low": need.low,
                    "n_per_class_high": need.high,
                    "n_in_all": need.in_all,
                    "seeds": need.seeds,
                    "n_per_class_with_seeds": need.per_class_with_seeds,
                }
            )
    return rows


def build_width_rows(plan: PairPlan, plans: Sequence[PairPlan]) -> list[dict[str, Any]]:
    """Return the expected width of the interval and the power for each number of subjects in the figures."""
    return [
        {
            "first": plan.first,
            "second": plan.second,
            "n_per_class": round(float(n)),
            "width": find_width(plan.variance, round(float(n))),
            "power": plan.variance.power(round(float(n)), plan.margin, alpha=plan.alpha),
        }
        for n in subject_grid(plans)[::6]
    ]


def build_values(plan: PairPlan) -> dict[str, Any]:
    """Return the values of `results.json`: those of the pair that needs most subjects."""
    values: dict[str, Any] = {
        "margin": plan.margin,
        "alpha": plan.alpha,
        "pair": [plan.first, plan.second],
        "prevalence": plan.prevalence,
        "variance_per_subject_of_each_class": plan.variance.per_subject,
        "sd_between_seeds": plan.variance.between_seeds**0.5,
        "seeds": plan.variance.seeds,
        "present": plan.present and {"positive": plan.present[0], "negative": plan.present[1]},
        "power_now": plan.power_now,
        "width_now": plan.width_now,
    }
    for power in POWERS:
        need, suffix = find_need(plan, power), f"{100 * power:.0f}"
        values |= {
            f"n_per_class_{suffix}": need.per_class,
            f"n_per_class_{suffix}_interval": None if need.low is None else [need.low, need.high],
            f"n_in_all_{suffix}": need.in_all,
            f"seeds_{suffix}": need.seeds,
            f"n_per_class_{suffix}_with_seeds": need.per_class_with_seeds,
        }
    return values


def build_figures(plans: Sequence[PairPlan]) -> list[StudyFigure]:
    """Return the figures of power and of width."""
    present = "; vertical line: the present subjects of the rarer class" if plans[0].present else ""
    band = "; band: 95 %, from the uncertainty of the variance" if len(plans[0].draws) else ""
    return [
        StudyFigure(
            "power", f"Power over the test subjects of each class; dashed: 80 and 90 %{band}{present}.",
            draw_power(plans),
        ),
        StudyFigure(
            "width",
            "Expected width of the 95 % interval of the difference; dashed: twice the margin, below which an "
            f"interval about 0 lies within it{band}{present}.",
            draw_width(plans),
        ),
    ]  # fmt: skip


def build_notes(plan: PairPlan) -> list[str]:
    """Return how the numbers were computed, and their limits."""
    if plan.present is None:
        own = [NOTE_PLANNED]
    elif plan.variance.seeds > 1:
        own = [NOTE_DELONG, NOTE_BOOTSTRAP, NOTE_SEEDS.format(seeds=plan.variance.seeds)]
    else:
        own = [NOTE_DELONG, NOTE_BOOTSTRAP, NOTE_ONE_SEED]
    return [*own, NOTE_TEST, NOTE_POWER.format(alpha=plan.alpha)]


def _build_table(plans: Sequence[PairPlan]) -> TextTable:
    all_rows = [row for plan in plans for row in build_rows(plan)]
    needs_seeds = any(row["seeds"] for row in all_rows)
    names = [] if len(plans) == 1 else ["Models"]
    rows = [
        [
            *(f"{row['first']} and {row['second']}" for _ in names),
            f"{row['difference']:g}",
            f"{100 * row['power']:.0f} %",
            *(_format_count(row[key]) for key in COUNTS),
            *([_format_seeds(row)] if needs_seeds else []),
        ]
        for row in all_rows
    ]
    headings = [*names, "difference", "power", "of each class", "low", "high", "in all"]
    headings += ["with more seeds"] if needs_seeds else []
    caption = (
        "Test subjects for half the margin, the margin and twice the margin; low and high: 95 % interval; "
        f"in all: at a prevalence of {plans[0].prevalence:.2f}."
    )
    return TextTable(caption if names else f"{plans[0].name}. {caption}", headings, rows)


def _format_seeds(row: Mapping[str, Any]) -> str:
    return f"{row['seeds']} seeds: {row['n_per_class_with_seeds']} of each class" if row["seeds"] else ""


def _format_count(value: int | None) -> str:
    return "\N{EN DASH}" if value is None else str(value)
