"""Report the study of shortcuts: its table, figure, page and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxlift.app.comparison.trial import Trial
from voxlift.app.config import TrainSettings
from voxlift.app.config.commands import StudySettings
from voxlift.app.evaluation.verdict import decide, format_p_value
from voxlift.app.report.run_page import describe_task
from voxlift.app.report.study_page import StudyFigure, TextTable
from voxlift.app.report.tables import format_interval, format_signed, format_value
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.outputs import StudyResults, describe_fixed, write_study_results
from voxlift.app.studies.shortcuts.contestants import FITTED, Contestant, SeedRun
from voxlift.app.studies.shortcuts.figures import draw_contestants
from voxlift.app.studies.shortcuts.results import (
    CHANCE,
    LEVEL,
    METRIC,
    Interval,
    Result,
    associate_sites,
    compare_contestants,
)

EXPLANATIONS = {
    "header": "spacing, shape, position, type, format and size of the files",
    "histogram": "seven percentiles and the standard deviation of the stored intensities",
    "border": "the outer tenth on each side of the prepared volume, at least two voxels",
    "background": "outside the largest component above Otsu's threshold",
    "silhouette": "where that component is, without its intensities",
    "blurred": "the prepared volume shrunk to 8 x 8 x 8 cells",
    "shuffled_slices": "the trained model, slices of the test volumes in random order",
    "mirrored": "the trained model, test volumes mirrored left to right",
    "shuffled_labels": "all of the fitted ones, labels of training and validation shuffled",
    "site": "the site as target, from border, background, silhouette and blurred volume",
}
ANATOMY = ("silhouette", "blurred")  # contestants that hold size and shape
NOTE_FITTED = (
    "header, histogram, border, background, silhouette, blurred, shuffled_labels and site are small models, "
    "fitted to the training subjects of the model: validation selects a logistic regression with an L2 "
    "penalty, or a random forest. Parts of a prepared volume are described in at most 8 x 8 x 8 cells: "
    "means, and for the border minimum and maximum as well. A network may find what these do not: that "
    "nothing is caught is no proof that there is no shortcut."
)
NOTE_RESCORED = "shuffled_slices and mirrored score the trained model again; nothing is fitted."
NOTE_FILES = (
    "header and histogram are of the files, before preprocessing, which may remove what they show. All "
    "others are of prepared volumes: what the model sees."
)
NOTE_ANATOMY = (
    "A contestant above chance need not be an artefact: silhouette and blurred volume hold size and shape, "
    "the background holds what is not connected with the largest component, histogram and size of a file "
    "depend on the anatomy, and the border of a narrow crop holds some. How much of it the model uses, the "
    "study does not measure."
)
NOTE_INTERVALS = (
    "Intervals are 95 %, from a bootstrap over test subjects with the variance between seeds added. A "
    "contestant is caught where its interval is above 0.5 and the one-sided p-value of the Mann-Whitney "
    "test, adjusted over the fitted contestants (Holm), is below 0.05; over seeds and folds p is twice the "
    "median. The share is (AUC - 0.5) / (AUC of the model - 0.5). An AUC below 0.5 is chance as well: small "
    "models that learn nothing tend below it where the classes are balanced in every split."
)
NOTE_CLASSES = (
    "Of {count} classes the AUC is the mean over classes, each against the rest; the test is that of the "
    "class that is separated best, with the p-value multiplied by {count} (Bonferroni)."
)
NOTE_ZERO_WIDTH = (
    "An interval of zero width says that every resample of these test subjects gives this AUC; it is no "
    "proof that further subjects would."
)
NOTE_SEEDS = "A seed decides the split, the initial weights and the order of the batches."


@dataclass(frozen=True, eq=False)
class ShortcutFindings:
    """What the study has found.

    Attributes:
        model: Name of the model.
        runs: The finished training of each seed.
        contestants: In the order asked for.
        site_column: Of the table; empty without one.
        sites: Known sites by item.
        failures: A sentence for each failed training.
        base: Settings of the first training.
        trials: Finished trainings.
    """

    model: str
    runs: Sequence[SeedRun]
    contestants: Sequence[Contestant]
    site_column: str
    sites: Mapping[str, str]
    failures: Sequence[str]
    base: TrainSettings
    trials: Sequence[Trial]


def report_shortcuts(settings: StudySettings, folder: StudyFolder, found: ShortcutFindings) -> None:
    """Write all files of the study and print its sentences."""
    study = settings.study
    seeds = [one.seed for one in found.runs]
    model, results = compare_contestants(
        found.contestants,
        [one.scores for one in found.runs],
        seeds,
        resamples=int(study.resamples),
        margin=settings.verdict.margin,
    )
    rows = [build_row(one, model) for one in results]
    tested = max(
        len({subject for one in found.runs if one.seed == seed for subject in one.scores.subjects})
        for seed in seeds
    )
    summary = StudyResults(
        name=f"Shortcuts on {describe_task(settings.data)}: {found.model}, and contestants that see less",
        recommendation=recommend(model, results),
        findings=[
            f"The model reaches {format_auc(model)} on {tested} test subjects; seeds: {len(set(seeds))}.",
            *describe_results(model, results),
            *describe_sites(found),
            *found.failures,
        ],
        varied=[
            ("contestant", ", ".join(study.contestants)),
            ("seed", ", ".join(map(str, dict.fromkeys(seeds)))),
        ],
        fixed=describe_fixed(found.base),
        rows=rows,
        document=rows,
        drawings=[
            StudyFigure(
                "contestants",
                "AUC with 95 % intervals; shaded: that of the model; dashed: chance. Diamonds are caught: "
                "they tell the classes from a part of the file or volume. The site has its own target.",
                draw_contestants(model, results),
            )
        ],
        tables=[build_table(results, model), build_explanations(results)],
        notes=build_notes(results, classes=len(found.runs[0].cohort.classes)),
    )
    write_study_results(summary, folder, trials=found.trials)


def build_notes(results: Sequence[Result], *, classes: int) -> list[str]:
    """Return how the study was done."""
    more = [NOTE_ZERO_WIDTH] if any(one.auc.low == one.auc.high for one in results) else []
    more += [NOTE_CLASSES.format(count=classes)] if classes > 2 else []
    return [NOTE_FITTED, NOTE_RESCORED, NOTE_FILES, NOTE_ANATOMY, NOTE_INTERVALS, *more, NOTE_SEEDS]


def recommend(model: Interval, results: Sequence[Result]) -> str:
    """Return the sentence that the page begins with; it claims no more than the intervals allow."""
    caught = sorted(
        (one for one in results if one.is_caught), key=lambda one: (one.name in ANATOMY, -one.auc.value)
    )
    tested = [one for one in results if one.name in FITTED and not one.reason]
    if not tested:
        return f"The model reaches {format_auc(model)}; none of the fitted contestants was scored."
    if not caught:
        chance = "" if model.low > CHANCE else ", which is not shown to be above chance either"
        reach = f"No contestant is shown to tell the classes; the model reaches {format_auc(model)}{chance}."
        return f"{reach} {describe_highest(tested)}"
    first, others = caught[0], caught[1:]
    also = [f"Also above chance: {', '.join(map(_name_and_auc, others))}."] if others else []
    reach = (
        f"The {_label(first)} alone reaches {format_value(first.auc.value)} "
        f"{format_interval(first.auc.low, first.auc.high)} of the model's {format_auc(model)}"
    )
    if first.name not in ANATOMY:
        return " ".join([f"{reach}: look there first.", *also])
    rest = [one for one in tested if one.name not in ANATOMY]
    unseen = [f"No other contestant is shown to tell the classes. {describe_highest(rest)}"] if rest else []
    return " ".join([f"{reach}: size and shape, which may be the anatomy.", *also, *unseen])


def describe_highest(tested: Sequence[Result]) -> str:
    """Return the highest AUC that the intervals of contestants leave possible."""
    highest = max(tested, key=lambda one: one.auc.high)
    return (
        f"With these test subjects, an AUC of the {_label(highest)} up to {format_value(highest.auc.high)} "
        "cannot be excluded."
    )


def describe_results(model: Interval, results: Sequence[Result]) -> list[str]:
    """Return the results of the rescored model and of shuffled labels, and the contestants left out."""
    sentences = []
    for one in results:
        if one.reason:
            sentences.append(f"{one.name} was left out: {one.reason}.")
        elif one.is_caught and one.name in ANATOMY:
            sentences.append(f"The {_label(one)} may tell the classes by anatomy: it holds size and shape.")
        elif one.name == "shuffled_labels":
            sentences.append(describe_control(one))
        elif one.pair is not None and one.name not in FITTED:
            sentences.append(describe_rescored(one))
    if model.low <= CHANCE:
        sentences.append("No share of the model's AUC is given: the model is not shown to be above chance.")
    return sentences


def describe_control(one: Result) -> str:
    """Return whether shuffled labels give chance, as they must."""
    is_chance = one.auc.low <= CHANCE <= one.auc.high
    text = f"With shuffled labels {format_auc(one.auc)} is reached"
    if is_chance:
        return f"{text}: chance, as it must be."
    return (
        f"{text}, though it must be chance: too few test subjects for such an interval, or copies of "
        "subjects in two splits."
    )


def describe_rescored(one: Result) -> str:
    """Return what the change of the test volumes does to the model's AUC."""
    assert one.pair is not None  # noqa: S101 - for the type checker: the caller has looked
    found, verdict = one.pair.differences[METRIC], decide(one.pair)
    subject = "Slices in random order" if one.name == "shuffled_slices" else "Mirrored test volumes"
    text = (
        f"{subject} change the model's AUC by {format_signed(found.difference)} "
        f"{format_interval(found.low, found.high)}"
    )
    use = "the order of slices" if one.name == "shuffled_slices" else "left and right"
    if verdict.verdict == "worse":
        return f"{text}: the model uses {use}{verdict.remark}."
    if verdict.verdict == "cannot tell":
        return f"{text}: whether the model uses {use} cannot be told{verdict.remark}."
    return f"{text}: {verdict.text}."


def describe_sites(found: ShortcutFindings) -> list[str]:
    """Return whether the classes are spread differently over the sites."""
    if not found.sites:
        return []
    v, p = associate_sites([one.cohort for one in found.runs], found.sites)
    text = f"{found.site_column} and class: Cramer's V {format_value(v)}, p {format_p_value(p)}"
    if p < LEVEL:
        return [
            f"{text}. What tells the site can tell the class: they are spread differently over the sites."
        ]
    return [f"{text}: no association is shown."]


def build_row(one: Result, model: Interval) -> dict[str, Any]:
    """Return the row of a contestant in `results.json` and `table.csv`; null for what there is not."""
    difference = Interval()
    if one.pair is not None:
        paired = one.pair.differences[METRIC]
        difference = Interval(paired.difference, paired.low, paired.high)
    values = {
        **_columns("", one.auc, value="auc"),
        "model_auc": model.value,
        **_columns("share_", one.share, value="share"),
        **_columns("difference_", difference, value="difference"),
        "p": one.p,
        "p_holm": one.adjusted,
    }
    finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
    is_tested = one.name in FITTED and not one.reason
    caught = one.is_caught if is_tested else None
    return {"contestant": one.name, **finite, "caught": caught, "reason": one.reason}


def build_table(results: Sequence[Result], model: Interval) -> TextTable:
    """Return the table of the page: the model, then every contestant."""
    own = ["model", format_value(model.value), format_interval(model.low, model.high), "", "", "", "", ""]
    rows = [own, *(_build_table_row(one) for one in results)]
    headings = (
        *("Contestant", "AUC", "95 %", "share of the model's"),
        *("95 %", "minus the model", "p (Holm)", "caught"),
    )
    return TextTable("AUC on the test subjects, means over seeds.", headings, rows)


def build_explanations(results: Sequence[Result]) -> TextTable:
    """Return the table of what each contestant sees."""
    rows = [[one.name, EXPLANATIONS[one.name]] for one in results]
    return TextTable("What each contestant sees.", ("Contestant", "sees"), rows, numbers_from=2)


def _build_table_row(one: Result) -> list[str]:
    if one.reason:
        return [one.name, "left out", *[""] * 6]
    difference = format_signed(one.pair.differences[METRIC].difference) if one.pair else ""
    has_share = math.isfinite(one.share.value)
    return [
        one.name,
        format_value(one.auc.value),
        format_interval(one.auc.low, one.auc.high),
        format_value(one.share.value) if has_share else "",
        format_interval(one.share.low, one.share.high) if has_share else "",
        difference,
        format_p_value(one.adjusted) if math.isfinite(one.adjusted) else "",
        ("yes" if one.is_caught else "no") if one.name in FITTED else "",
    ]


def format_auc(auc: Interval) -> str:
    """Return an AUC with its interval as text."""
    return f"AUC {format_value(auc.value)} {format_interval(auc.low, auc.high)}"


def _columns(prefix: str, one: Interval, *, value: str) -> dict[str, float]:
    return {value: one.value, f"{prefix}low": one.low, f"{prefix}high": one.high}


def _label(one: Result) -> str:
    return "blurred volume" if one.name == "blurred" else one.name


def _name_and_auc(one: Result) -> str:
    return f"{_label(one)} {format_value(one.auc.value)} {format_interval(one.auc.low, one.auc.high)}"
