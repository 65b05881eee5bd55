"""Draw the figures of the pages: ROC, precision-recall, calibration, learning curves and forest plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxlift.app.evaluation.calibration import Reliability, reliability_bins
from voxlift.app.evaluation.curves import Curve, macro_roc_curve, precision_recall_curve, roc_curve
from voxlift.app.evaluation.metric_names import interval_of, metric_label
from voxlift.app.evaluation.metrics import CALIBRATION_BINS, bin_index, score_metrics
from voxlift.app.evaluation.paired import Comparison
from voxlift.app.evaluation.scores import Scores
from voxlift.app.report.pages import (
    INK,
    MUTED,
    PAPER,
    SERIES,
    assign_colours,
    figure_style,
    legend_label,
    new_axes,
    series_style,
    svg_markup,
)
from voxlift.app.report.tables import Row

CaptionedFigure: TypeAlias = tuple[str, Markup]

MANY_CLASSES = 4  # from so many on, each has a panel of its own
MAX_CURVES = 6  # in one figure: more bands cannot be distinguished
MIN_JOINED = 5  # volumes of a bin of a reliability diagram, for a line to its neighbours
MAX_CLASSES = 12  # with curves of their own on a page
LEARNING_CURVES = (  # in order of preference
    "loss",
    "kappa_quadratic",
    "mae",
    "auc",
    "balanced_accuracy",
    "accuracy",
)
DASHED: Any = {"color": MUTED, "linewidth": 0.7, "linestyle": (0, (2, 2))}
TICKS = (0, 0.2, 0.4, 0.6, 0.8, 1.0)
CALIBRATION_CAPTION = (
    "{title}: {observed} against {predicted}, in ten bins of equal width; whiskers: "
    "Wilson 95 % intervals; dashed: perfect calibration. The bars below count the volumes in each bin; bins "
    "with fewer than {least} are hollow and not joined."
)


def roc_figure(
    series: Mapping[str, tuple[Scores, int]],
    *,
    name: str,
    title: str,
    show_threshold: bool = True,
    colours: Mapping[str, int] | None = None,
) -> Markup:
    """Draw ROC curves with 95 % bands, and a ring at the decision threshold of two-class scores.

    Args:
        series: Legend entry to scores and the index of the positive class (against the rest).
        name: Unique on the page.
        title: Accessible name.
        show_threshold: Whether the ring is drawn.
        colours: Legend entry to the index of its series, see `assign_colours`; None: in the order given.
    """
    colours = colours or assign_colours(series)
    with figure_style():
        figure, axes = new_axes()
        axes.plot([0, 1], [0, 1], **DASHED)
        for label, (scores, positive) in series.items():
            metrics, index = one_against_rest(scores, positive), colours[label]
            draw_curve(axes, roc_curve(scores, klass=positive), index, f"{label}  {metrics['auc']:.3f}")
            if scores.is_binary and show_threshold:
                axes.plot(
                    1 - metrics["specificity"], metrics["sensitivity"], marker="o", markersize=6,
                    markeredgewidth=1.5, markerfacecolor=PAPER, markeredgecolor=SERIES[index % len(SERIES)],
                    linestyle="none", zorder=5,
                )  # fmt: skip
        _format_unit_square(axes, "False positive rate (1 \N{MINUS SIGN} specificity)", "Sensitivity")
        axes.legend(loc="lower right", title="ROC AUC", alignment="left")
        return svg_markup(figure, name=name, title=title)


def macro_roc_figure(
    series: Mapping[str, Scores],
    classes: Sequence[int],
    *,
    name: str,
    title: str,
    colours: Mapping[str, int] | None = None,
) -> Markup:
    """Draw the mean ROC curve over classes of one or several models, with 95 % bands.

    Args:
        series: Model (empty for the only one) to scores.
        classes: Indices of the classes that are averaged.
        name: Unique on the page.
        title: Accessible name.
        colours: As in `roc_figure`.
    """
    colours = colours or assign_colours(series)
    with figure_style():
        figure, axes = new_axes()
        axes.plot([0, 1], [0, 1], **DASHED)
        for label, scores in series.items():
            area = np.mean([one_against_rest(scores, klass)["auc"] for klass in classes])
            curve = macro_roc_curve(scores, classes=classes)
            draw_curve(axes, curve, colours[label], f"{label}  {area:.3f}".strip())
        _format_unit_square(
            axes, "False positive rate (1 \N{MINUS SIGN} specificity)", "Sensitivity, mean of the classes"
        )
        axes.legend(loc="lower right", title="ROC AUC, mean of the classes", alignment="left")
        return svg_markup(figure, name=name, title=title)


def precision_recall_figure(
    series: Mapping[str, tuple[Scores, int]],
    *,
    name: str,
    title: str,
    colours: Mapping[str, int] | None = None,
) -> Markup:
    """Draw precision-recall curves with 95 % bands, and the prevalence as a dashed line.

    Args:
        series: Legend entry to scores and the index of the positive class (against the rest).
        name: Unique on the page.
        title: Accessible name.
        colours: As in `roc_figure`.
    """
    colours = colours or assign_colours(series)
    with figure_style():
        figure, axes = new_axes()
        for label, (scores, positive) in series.items():
            metrics = one_against_rest(scores, positive)
            prevalence = float((scores.labels == positive).mean())
            axes.plot([0, 1], [prevalence, prevalence], **DASHED)
            curve = precision_recall_curve(scores, klass=positive)
            text = f"{label}  {metrics['average_precision']:.3f}"
            draw_curve(axes, curve, colours[label], text, steps=True)
        _format_unit_square(axes, "Recall (sensitivity)", "Precision (PPV)")
        # Where few are positive the curves lie low: no corner is free in every figure.
        axes.legend(loc="best", title="Average precision", alignment="left")
        return svg_markup(figure, name=name, title=title)


def select_classes(scores: Scores) -> tuple[list[int], int]:
    """Return the classes whose curves are drawn, in index order, and how many (the rarest) are left out.

    Of two classes only the positive one is drawn; a class that the split lacks has no curve.
    """
    if scores.is_binary:
        return ([1] if 0 < scores.labels.sum() < len(scores) else []), 0
    counts = np.bincount(scores.labels, minlength=len(scores.classes))
    known = [int(k) for k in np.argsort(-counts, kind="stable") if 0 < counts[k] < len(scores)]
    return sorted(known[:MAX_CLASSES]), len(known[MAX_CLASSES:])


def curve_figures(
    series: Mapping[str, tuple[Scores, int]],
    description: str,
    *,
    key: object,
    show_threshold: bool = True,
    colours: Mapping[str, int] | None = None,
) -> list[CaptionedFigure]:
    """Draw the ROC and the precision-recall curve of each series, with captions.

    Args:
        series: Legend entry to scores and the index of the positive class.
        description: What the scores are and of which split, for the captions.
        key: Makes the ids unique on the page. The names of classes would not: `-1` and `1` give one id.
        show_threshold: Whether the decision threshold is drawn.
        colours: As in `roc_figure`.
    """
    roc, precision_recall = f"ROC curve, {description}", f"Precision-recall curve, {description}"
    first = roc_figure(series, name=f"roc-{key}", title=roc, show_threshold=show_threshold, colours=colours)
    second = precision_recall_figure(series, name=f"pr-{key}", title=precision_recall, colours=colours)
    return [(f"{roc}.", first), (f"{precision_recall}.", second)]


def calibration_figure(
    series: Mapping[str, Scores], *, name: str, title: str, colours: Mapping[str, int] | None = None
) -> CaptionedFigure:
    """Draw observed against predicted frequency with Wilson intervals, and the volumes in each bin.

    Args:
        series: Legend entry to scores.
        name: Unique on the page.
        title: Accessible name.
        colours: As in `roc_figure`.
    """
    colours = colours or assign_colours(series)
    first = next(iter(series.values()))
    if first.is_binary:
        positive = first.classes[1]
        observed, predicted = f"observed frequency of {positive}", f"predicted probability of {positive}"
    else:
        observed, predicted = "observed share of correct decisions", "probability of the predicted class"
    with figure_style():
        figure = Figure(figsize=(4.6, 5.0), layout="constrained")
        axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
        axes.plot([0, 1], [0, 1], **DASHED)
        for place, (label, scores) in enumerate(series.items()):
            bins, index = reliability_bins(scores), colours[label]
            # Beside each other, so that the whiskers of two models do not hide one another.
            shift = 0.008 * (place - (len(series) - 1) / 2)
            _draw_bins(axes, bins, index, f"{label}  {score_metrics(scores)['ece']:.3f}", shift=shift)
            colour = SERIES[index % len(SERIES)]
            counts.bar(bins.predicted + 2 * shift, bins.counts, width=0.014, color=colour)
        _format_unit_square(axes, "", _capitalize(observed))
        counts.set(xlabel=_capitalize(predicted), ylabel="Volumes")
        counts.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.legend(loc="best", title=metric_label("ece"), alignment="left")
        caption = CALIBRATION_CAPTION.format(
            title=title, observed=observed, predicted=predicted, least=MIN_JOINED
        )
        return caption, svg_markup(figure, name=name, title=title)


def one_against_rest(scores: Scores, positive: int) -> dict[str, float]:
    """Return the metrics of one class against the rest, under the names that two classes have."""
    metrics = score_metrics(scores)
    if scores.is_binary:
        return metrics
    suffix = f"[{scores.classes[positive]}]"
    return {key.removesuffix(suffix): value for key, value in metrics.items() if key.endswith(suffix)}


def learning_curve_figures(
    histories: Mapping[str, Sequence[Row]], *, colours: Mapping[str, int] | None = None
) -> list[CaptionedFigure]:
    """Draw the loss and the best recorded metric over epochs, a figure each.

    Args:
        histories: Run to one row per epoch. Of one run, training and validation are drawn; of several,
            validation only.
        colours: As in `roc_figure`.
    """
    first = next((history for history in histories.values() if history), None)
    if first is None:
        return []
    recorded = [name for name in LEARNING_CURVES if any(epoch_values(first, name).values())]
    chosen = recorded[: 2 if recorded[:1] == ["loss"] else 1]
    return [
        (
            f"{_capitalize(metric_label(quantity))} after each epoch.",
            learning_curve_figure(
                histories,
                quantity,
                name=f"history-{quantity}",
                title=f"{_capitalize(metric_label(quantity))} over epochs",
                colours=colours,
            ),
        )
        for quantity in chosen
    ]


def learning_curve_figure(
    histories: Mapping[str, Sequence[Row]],
    quantity: str,
    *,
    name: str,
    title: str,
    colours: Mapping[str, int] | None = None,
) -> Markup:
    """Draw one quantity over epochs: training and validation of one run, or validation of several.

    Args:
        histories: Run to one row per epoch.
        quantity: Name of its column.
        name: Unique on the page.
        title: Accessible name.
        colours: As in `roc_figure`.
    """
    is_single, colours = len(histories) == 1, colours or assign_colours(histories)
    with figure_style():
        figure, axes = new_axes(height=3.2)
        for label, history in histories.items():
            kinds = epoch_values(history, quantity)
            for index, (kind, points) in enumerate(kinds.items()):
                if not points or (not is_single and kind == "training"):
                    continue
                epochs, values = zip(*points, strict=True)
                marker = "o" if len(points) < 3 else ""  # a line of one or two points is hard to see
                style = series_style(index if is_single else colours[label])
                axes.plot(
                    epochs, values, label=legend_label(kind if is_single else label), marker=marker, **style
                )
        axes.set(xlabel="Epoch", ylabel=_capitalize(metric_label(quantity)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True)
        axes.legend(title=None if len(histories) == 1 else "validation")
        return svg_markup(figure, name=name, title=title)


def epoch_values(history: Sequence[Row], quantity: str) -> dict[str, list[tuple[float, float]]]:
    """Return the defined training and validation values of a quantity as (epoch from 1, value)."""
    found: dict[str, list[tuple[float, float]]] = {"training": [], "validation": []}
    for number, row in enumerate(history, start=1):
        for kind, column in (("training", quantity), ("validation", f"val_{quantity}")):
            value = _as_number(row.get(column))
            if math.isfinite(value):
                found[kind].append((number, value))
    return found


def forest_figure(
    metrics: Mapping[str, Mapping[str, object]],
    metric: str,
    *,
    name: str,
    title: str,
    unit: str = "",
    colours: Mapping[str, int] | None = None,
) -> Markup:
    """Draw a metric of several models, or groups, as points with intervals, one row each.

    Args:
        metrics: Row to its block of metrics.
        metric: Its key.
        name: Unique on the page.
        title: Accessible name.
        unit: Of a predicted number.
        colours: Row to the index of the series of its model; None: one colour for all.
    """
    with figure_style():
        figure, axes = new_axes(height=0.9 + 0.36 * len(metrics))
        draw_forest(axes, metrics, metric, unit=unit, colours=colours)
        return svg_markup(figure, name=name, title=title)


def draw_forest(
    axes: Axes,
    metrics: Mapping[str, Mapping[str, object]],
    metric: str,
    *,
    unit: str = "",
    colours: Mapping[str, int] | None = None,
) -> None:
    """Draw the points and intervals of `forest_figure`, which has the same arguments."""
    for row, (label, block) in enumerate(metrics.items()):
        colour = SERIES[(colours or {}).get(label, 0) % len(SERIES)]
        _draw_interval(axes, row, _as_number(block.get(metric)), interval_of(block, metric), colour)
    _format_rows(axes, tuple(metrics), metric_label(metric, unit))


def difference_figure(comparisons: Sequence[Comparison], *, name: str, title: str) -> Markup:
    """Draw differences of the primary metric as points with intervals, a line at 0, and the margin shaded.

    Args:
        comparisons: Pairs, all with one primary metric and margin.
        name: Unique on the page.
        title: Accessible name.
    """
    with figure_style():
        figure, axes = new_axes(height=0.9 + 0.36 * len(comparisons))
        axes.axvline(0, color=MUTED, linewidth=0.9)
        axes.axvspan(-comparisons[0].margin, comparisons[0].margin, color=MUTED, alpha=0.15, linewidth=0)
        for row, one in enumerate(comparisons):
            found = one.differences[one.primary]
            _draw_interval(axes, row, found.difference, (found.low, found.high), INK)
        labels = tuple(f"{one.second} \N{MINUS SIGN} {one.first}" for one in comparisons)
        _format_rows(
            axes, labels, f"Difference of {metric_label(comparisons[0].primary, comparisons[0].unit)}"
        )
        limit = max(abs(bound) for bound in axes.get_xlim())
        axes.set_xlim(-limit, limit)
        return svg_markup(figure, name=name, title=title)


def draw_curve(axes: Axes, curve: Curve, index: int, label: str, *, steps: bool = False) -> None:
    """Draw a curve with its band.

    Args:
        axes: Where it is drawn.
        curve: The curve.
        index: Of its series, for the colour.
        label: Entry of the legend.
        steps: Whether its points are joined by steps instead of lines.
    """
    style = series_style(index)
    axes.fill_between(curve.grid, curve.low, curve.high, color=style["color"], alpha=0.14, linewidth=0)
    axes.plot(
        curve.x, curve.y, label=legend_label(label), drawstyle="steps-pre" if steps else "default", **style
    )


def _draw_bins(axes: Axes, bins: Reliability, index: int, label: str, *, shift: float) -> None:
    """Draw the bins; those of few volumes are hollow, and no line leads to them."""
    style, x = series_style(index), bins.predicted + shift
    axes.vlines(x, bins.low, bins.high, color=style["color"], linewidth=0.8, alpha=0.6)
    axes.plot([], [], marker="o", markersize=4, label=legend_label(label), **style)
    for first, second in joined_bins(bins):
        axes.plot(x[[first, second]], bins.observed[[first, second]], **style)
    for place, count in enumerate(bins.counts):
        fill = PAPER if count < MIN_JOINED else style["color"]
        axes.plot(
            x[place],
            bins.observed[place],
            marker="o",
            markersize=4,
            markerfacecolor=fill,
            color=style["color"],
        )


def joined_bins(bins: Reliability) -> list[tuple[int, int]]:
    """Return the pairs of neighbouring bins between which a line is drawn: both hold enough volumes."""
    number = bin_index(bins.predicted, CALIBRATION_BINS)
    is_enough = bins.counts >= MIN_JOINED
    return [
        (first, first + 1)
        for first in range(len(number) - 1)
        if number[first + 1] == number[first] + 1 and is_enough[first] and is_enough[first + 1]
    ]


def _draw_interval(axes: Axes, row: int, value: float, pair: tuple[float, float] | None, colour: str) -> None:
    if pair is not None and all(math.isfinite(end) for end in pair):
        axes.hlines(row, *pair, color=colour, linewidth=1.6)
        axes.vlines(pair, row - 0.13, row + 0.13, color=colour, linewidth=1.2)
    axes.plot(value, row, marker="o", markersize=6, color=colour, linestyle="none")


def _format_unit_square(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03), xlabel=x_label, ylabel=y_label)
    axes.set_xticks(TICKS)
    axes.set_yticks(TICKS)
    axes.grid(visible=True)
    axes.tick_params(colors=MUTED, labelcolor=INK)


def _format_rows(axes: Axes, labels: Sequence[str], x_label: str) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(x_label)
    axes.grid(visible=True, axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def _as_number(value: object) -> float:
    """Return a number, or its text, as float; nan for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan
