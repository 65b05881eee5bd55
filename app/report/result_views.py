"""What a page shows of predictions, by what is predicted: curves, calibration, confusion, and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from voxlift.app.evaluation.calibration import Calibration, apply_calibration
from voxlift.app.evaluation.findings import Findings
from voxlift.app.evaluation.grades import Grades, cut_scores
from voxlift.app.evaluation.metrics import score_metrics
from voxlift.app.evaluation.numbers import Numbers
from voxlift.app.evaluation.scores import AnyPredictions, Predictions, Scores, fits_of, replace_fields
from voxlift.app.report import tables
from voxlift.app.report.figures import (
    MANY_CLASSES,
    MAX_CLASSES,
    MAX_CURVES,
    CaptionedFigure,
    calibration_figure,
    curve_figures,
    macro_roc_figure,
    select_classes,
)
from voxlift.app.report.pages import assign_colours, slugify
from voxlift.app.report.tables import format_signed, format_value
from voxlift.app.report.task_figures import (
    bland_altman_figure,
    curve_grid,
    error_span,
    number_limits,
    scatter_figure,
)

Models: TypeAlias = Mapping[str, Sequence[Predictions]]
"""Model name to its predictions, one per fold and seed; the name is empty where a page shows a single run."""

Confusion: TypeAlias = tuple[str, Sequence[str], list[tuple[str, list[tuple[int, float]]]]]
"""Model, class names, and rows of `tables.confusion_rows`."""

MOST_PROBABLE = (
    "The predicted class is the one with the highest probability. Averages over classes are unweighted."
)
OF_CLASSES = "stratified by class, with all volumes of a subject together"
OF_SUBJECTS = "with all volumes of a subject together"


@dataclass(frozen=True)
class ResultViews:
    """The parts of a page that depend on what is predicted; what has no meaning there is empty.

    Attributes:
        curves: Curves, or scatter and Bland-Altman plots.
        curve_title: Heading above them.
        curve_note: A note below them.
        calibrations: Reliability diagrams.
        confusions: Confusion matrices.
        decision: How a volume is decided; empty for numbers.
        resampling: How the bootstrap draws, as the rest of a sentence.
        outcomes: Names whose own metrics (`auc[NAME]`) a table shows.
        outcome_title: Heading above that table.
        explained: What Grad-CAM explains, in words.
    """

    curves: list[CaptionedFigure] = field(default_factory=list)
    curve_title: str = "Curves"
    curve_note: str = ""
    calibrations: list[CaptionedFigure] = field(default_factory=list)
    confusions: list[Confusion] = field(default_factory=list)
    decision: str = ""
    resampling: str = OF_SUBJECTS
    outcomes: Sequence[str] = ()
    outcome_title: str = "Each class against the rest"
    explained: str = "the predicted class"


def view_results(
    models: Models,
    split: str,
    *,
    calibrations: Mapping[str, Sequence[Calibration]] | None = None,
    colours: Mapping[str, int] | None = None,
) -> ResultViews:
    """Return what a page shows of the predictions of one run, or of several models on the same volumes.

    Args:
        models: At least one.
        split: Of the predictions, for captions.
        calibrations: Of classes: model name to the calibration of each fold and seed; None: none was fitted.
        colours: Model name to the index of its series; None: see `assign_colours`.

    Raises:
        TypeError: The models predict different things.
    """
    colours = colours or assign_colours(models)
    fits = list(models.values())
    if numbers := fits_of(Numbers, *fits):
        return view_numbers(dict(zip(models, numbers, strict=True)), split, colours)
    if findings := fits_of(Findings, *fits):
        return view_findings(dict(zip(models, findings, strict=True)), split, colours)
    if grades := fits_of(Grades, *fits):
        return view_grades(dict(zip(models, grades, strict=True)), split, colours)
    classes = fits_of(Scores, *fits)
    if classes is None:
        raise TypeError(f"Expected predictions of one kind, received {[type(one[0]) for one in fits]}.")
    return view_classes(dict(zip(models, classes, strict=True)), split, calibrations or {}, colours)


def view_numbers(
    models: Mapping[str, Sequence[Numbers]], split: str, colours: Mapping[str, int]
) -> ResultViews:
    """Return scatter and Bland-Altman plots of each model."""
    pooled = {name: pool_fits(fits) for name, fits in list(models.items())[:MAX_CURVES]}
    limits, span = number_limits(*pooled.values()), error_span(*pooled.values())
    curves: list[CaptionedFigure] = []
    for number, (name, numbers) in enumerate(pooled.items()):
        key, of_model, index = slugify(f"{number} {name}"), f"{name}, " if name else "", colours[name]
        metrics = score_metrics(numbers)
        caption = (
            f"{of_model}{split} split: predicted against measured; dashed: identity; line: least squares "
            "fit; dotted: the mean of the training subjects. Pearson correlation "
            f"{format_value(metrics['pearson'])}."
        )
        scatter = scatter_figure(
            numbers, limits=limits, index=index, name=f"scatter-{key}", title="Predicted against measured"
        )
        agreement = (
            f"{of_model}{split} split, Bland-Altman plot: error over the mean of measured and predicted; "
            "line: mean error; dashed: limits of agreement (mean error \N{PLUS-MINUS SIGN} 1.96 SD). The "
            f"error changes by {format_signed(metrics['error_slope'])} per unit of the measured value."
        )
        plot = bland_altman_figure(
            numbers, span=span, index=index, name=f"agreement-{key}", title="Bland-Altman plot"
        )
        curves += [(caption, scatter), (agreement, plot)]
    return ResultViews(
        curves=curves, curve_title="Measured and predicted", explained="what raises the number"
    )


def view_findings(
    models: Mapping[str, Sequence[Findings]], split: str, colours: Mapping[str, int]
) -> ResultViews:
    """Return ROC and precision-recall curves with a panel for each finding, and their calibration."""
    pooled = {name: pool_fits(fits) for name, fits in models.items()}
    first = next(iter(pooled.values()))
    known = [k for k in range(len(first.names)) if first.has_both_outcomes(k)]
    shown = known[:MAX_CLASSES]
    panels = {first.names[k]: {name: one.finding(k) for name, one in pooled.items()} for k in shown}
    decision = "Each finding is decided at its own threshold, chosen on validation."
    return ResultViews(
        curves=_grids(panels, f"{split} split, a panel for each finding", colours),
        curve_note=_grid_note(len(known) - len(shown), has_ring=len(models) == 1),
        calibrations=_panel_calibrations(panels, colours),
        decision=f"{decision} Averages over findings are unweighted; unknown cells count for nothing.",
        outcomes=first.names,
        outcome_title="Each finding",
        explained="the finding that is named",
    )


def view_grades(
    models: Mapping[str, Sequence[Grades]], split: str, colours: Mapping[str, int]
) -> ResultViews:
    """Return the confusion matrices, and ROC and precision-recall curves with a panel for each cut."""
    pooled = {name: pool_fits(fits) for name, fits in models.items()}
    first = next(iter(pooled.values()))
    known = [cut for cut in range(len(first.cuts)) if 0 < (first.labels > cut).sum() < len(first)]
    panels = {first.cuts[cut]: {name: cut_scores(one, cut) for name, one in pooled.items()} for cut in known}
    return ResultViews(
        curves=_grids(panels, f"{split} split, a panel for each cut between grades", colours),
        curve_note=_grid_note(0, has_ring=False),
        calibrations=_panel_calibrations(panels, colours),
        confusions=_confusions(models),
        decision="The predicted grade is the median of its probabilities.",
        outcomes=first.cuts,
        outcome_title="Each cut between grades",
        explained="the cut below the predicted grade (above the lowest, where that is predicted)",
    )


def view_classes(
    models: Mapping[str, Sequence[Scores]],
    split: str,
    calibrations: Mapping[str, Sequence[Calibration]],
    colours: Mapping[str, int],
) -> ResultViews:
    """Return curves, calibration and confusion matrices of classes."""
    pooled = {name: pool_fits(fits) for name, fits in models.items()}
    first = next(iter(pooled.values()))
    is_single, fits = len(models) == 1 and "" in models, len(next(iter(models.values())))
    at = "at the decision threshold" + ("" if is_single else " of its model")
    decision = MOST_PROBABLE
    if first.is_binary:
        negative, positive = first.classes
        decision = (
            f"Each volume is decided {at}, chosen on validation. Sensitivity, PPV, F1 and average precision "
            f"are of {positive}, the second class; data.classes=[{positive},{negative}] swaps the classes."
        )
    left_out = select_classes(first)[1]
    if len(select_classes(first)[0]) >= MANY_CLASSES:
        curves = _many_curves(pooled, split, colours)
    elif is_single:
        curves = _run_curves(first, split)
    else:
        curves = _model_curves(pooled, split, is_pooled=fits > 1, colours=colours)
    return ResultViews(
        curves=curves,
        curve_note=_class_note(left_out, pooled if first.is_binary and fits == 1 else {}),
        calibrations=_class_calibrations(models, calibrations, is_single=is_single, colours=colours),
        confusions=_confusions(models),
        decision=decision,
        resampling=OF_CLASSES,
        outcomes=first.classes,
    )


def pool_fits(fits: Sequence[AnyPredictions]) -> AnyPredictions:
    """Return all folds and seeds of a model as one set of rows, for curves and calibration bins.

    Each fold and seed has its own threshold, so the decisions of the pooled rows are not meaningful.
    """
    if len(fits) == 1:
        return fits[0]
    first = fits[0]
    changed = {
        "subjects": tuple(subject for fit in fits for subject in fit.subjects),
        "items": tuple(f"{index}/{item}" for index, fit in enumerate(fits) for _, item in fit.keys),
        "labels": np.concatenate([fit.labels for fit in fits]),
        first.predicted: np.concatenate([getattr(fit, first.predicted) for fit in fits]),
    }
    return replace_fields(first, changed)


def _run_curves(scores: Scores, split: str) -> list[CaptionedFigure]:
    """Return the curves of one run's classes, at most six in one figure."""
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


def _model_curves(
    pooled: Mapping[str, Scores], split: str, *, is_pooled: bool, colours: Mapping[str, int]
) -> list[CaptionedFigure]:
    """Return the curves of several models, a figure for each class."""
    first = next(iter(pooled.values()))
    shown = list(pooled.items())[:MAX_CURVES]
    found = []
    for k in select_classes(first)[0]:
        rest = "" if first.is_binary else " (against the rest)"
        found += curve_figures(
            {name: (scores, k) for name, scores in shown},
            f"{split} split: probability of {first.classes[k]}{rest}",
            key=k,
            show_threshold=not is_pooled,
            colours=colours,
        )
    return found


def _many_curves(
    pooled: Mapping[str, Scores], split: str, colours: Mapping[str, int]
) -> list[CaptionedFigure]:
    """Return the curves of many classes, a panel for each with all models, and their mean ROC curve."""
    first, shown = next(iter(pooled.values())), dict(list(pooled.items())[:MAX_CURVES])
    known = select_classes(first)[0]
    panels = {first.classes[k]: {name: one_class(one, k) for name, one in shown.items()} for k in known}
    title = "ROC curve, mean of the classes"
    macro = macro_roc_figure(shown, known, name="macro-roc", title=title, colours=colours)
    caption = f"ROC curve, {split} split, mean over {len(known)} classes, each against the rest."
    grids = _grids(panels, f"{split} split, a panel for each class against the rest", colours)
    return [*grids, (caption, macro)]


def one_class(scores: Scores, klass: int) -> Scores:
    """Return the probabilities of one class against the rest, as scores of two classes."""
    p = scores.probabilities[:, klass]
    return Scores(
        subjects=scores.subjects,
        labels=(scores.labels == klass).astype(np.int64),
        probabilities=np.stack([1 - p, p], axis=1),
        classes=("rest", scores.classes[klass]),
        items=scores.items,
    )


def _class_note(left_out: int, decided: Mapping[str, Scores]) -> str:
    """Return the note below the curves.

    Args:
        left_out: Classes without a curve.
        decided: Model to the scores of two classes whose threshold is drawn.
    """
    ring = ""
    if decided:
        positive = next(iter(decided.values())).classes[1]
        thresholds = ", ".join(f"{name} {one.threshold:.3f}".strip() for name, one in decided.items())
        ring = f" Ring: the decision threshold; {positive} from this probability on: {thresholds}."
    rest = f" The {left_out} rarest classes are not drawn." if left_out else ""
    return (
        f"Bands: pointwise 95 % intervals from a bootstrap over subjects.{ring} Dashed: chance (ROC) and the "
        f"prevalence of the class (precision-recall).{rest}"
    )


def _class_calibrations(
    models: Mapping[str, Sequence[Scores]],
    calibrations: Mapping[str, Sequence[Calibration]],
    *,
    is_single: bool,
    colours: Mapping[str, int],
) -> list[CaptionedFigure]:
    """Return calibration as predicted and after scaling, in one figure for a single run."""
    pooled = {name: pool_fits(fits) for name, fits in models.items()}
    if is_single:
        series = {"as predicted": pooled[""]}
        if calibrations:
            series["bias-corrected" if calibrations[""][0].bias else "temperature-scaled"] = (
                apply_calibration(pooled[""], calibrations[""][0])
            )
        return [calibration_figure(series, name="calibration", title="Calibration")]
    title = "Calibration as predicted"
    found = [calibration_figure(pooled, name="calibration", title=title, colours=colours)]
    if calibrations:
        scaled = {
            name: pool_fits([apply_calibration(*pair) for pair in zip(fits, calibrations[name], strict=True)])
            for name, fits in models.items()
        }
        title = "Calibration after scaling fitted on validation"
        found.append(calibration_figure(scaled, name="calibration-scaled", title=title, colours=colours))
    return found


def _confusions(models: Mapping[str, Sequence[Scores]]) -> list[Confusion]:
    return [(name, fits[0].classes, tables.confusion_rows(fits)) for name, fits in models.items()]


def _grids(
    panels: Mapping[str, Mapping[str, Scores]], description: str, colours: Mapping[str, int]
) -> list[CaptionedFigure]:
    """Return a grid of ROC curves and one of precision-recall curves; none without panels."""
    shown = {outcome: dict(list(series.items())[:MAX_CURVES]) for outcome, series in panels.items()}
    titles = {"roc": "ROC curves", "pr": "Precision-recall curves"}
    return [
        (
            f"{title}, {description}.",
            curve_grid(shown, kind=kind, name=f"grid-{kind}", title=title, colours=colours),
        )
        for kind, title in titles.items()
        if shown
    ]


def _panel_calibrations(
    panels: Mapping[str, Mapping[str, Scores]], colours: Mapping[str, int]
) -> list[CaptionedFigure]:
    """Return a reliability diagram of each of the first outcomes, with all models."""
    shown = list(panels.items())[:MAX_CURVES]
    return [
        calibration_figure(
            series, name=f"calibration-{k}", title=f"Calibration of {outcome}", colours=colours
        )
        for k, (outcome, series) in enumerate(shown)
    ]


def _grid_note(left_out: int, *, has_ring: bool) -> str:
    ring = " Ring: the decision threshold." if has_ring else ""
    rest = f" {left_out} further findings are not drawn." if left_out else ""
    return (
        "Numbers: area under the curve, average precision. Bands: pointwise 95 % intervals from a bootstrap "
        f"over subjects.{ring} Dashed: chance (ROC) and the prevalence (precision-recall).{rest}"
    )
