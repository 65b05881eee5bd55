"""Figures about scores: ROC, precision-recall and calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxlift.app.evaluation.calibration import Reliability, reliability_bins
from voxlift.app.evaluation.curves import Curve, precision_recall_curve, roc_curve
from voxlift.app.evaluation.metrics import metric_label, score_metrics
from voxlift.app.evaluation.paired import Comparison
from voxlift.app.evaluation.scores import Scores
from voxlift.app.report.formatting import interval_of
from voxlift.app.report.style import (
    INK,
    MUTED,
    PAPER,
    SERIES,
    figure_style,
    new_axes,
    series_style,
    svg_markup,
)
from voxlift.app.report.summary import Row


def roc_figure(
    series: Mapping[str, tuple[Scores, int]], *, name: str, title: str, mark: bool = True
) -> Markup:
    """ROC curves with bands; each series is (scores, class against the rest), a ring marks its threshold."""
    with figure_style():
        figure, axes = new_axes()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.7, linestyle=(0, (2, 2)))
        for index, (label, (scores, klass)) in enumerate(series.items()):
            metrics = one_against_rest(scores, klass)
            _draw_curve(axes, roc_curve(scores, klass=klass), index, f"{label}  {metrics['auc']:.3f}")
            if scores.is_binary and mark:
                axes.plot(1 - metrics["specificity"], metrics["sensitivity"], **_marker(index))
        _unit_square(axes, "False positive rate (1 \N{MINUS SIGN} specificity)", "Sensitivity")
        axes.legend(loc="lower right", title="ROC AUC", alignment="left")
        return svg_markup(figure, name=name, title=title)


def precision_recall_figure(series: Mapping[str, tuple[Scores, int]], *, name: str, title: str) -> Markup:
    """Precision-recall curves with bands and the prevalence; each series is (scores, class)."""
    with figure_style():
        figure, axes = new_axes()
        for index, (label, (scores, klass)) in enumerate(series.items()):
            metrics = one_against_rest(scores, klass)
            share = float((scores.labels == klass).mean())
            axes.plot([0, 1], [share, share], color=MUTED, linewidth=0.7, linestyle=(0, (2, 2)))
            curve = precision_recall_curve(scores, klass=klass)
            _draw_curve(axes, curve, index, f"{label}  {metrics['average_precision']:.3f}", steps=True)
        _unit_square(axes, "Recall (sensitivity)", "Precision (PPV)")
        # Where few are positive the curves lie low: no corner is free in every figure.
        axes.legend(loc="best", title="Average precision", alignment="left")
        return svg_markup(figure, name=name, title=title)


def calibration_figure(series: Mapping[str, Scores], *, name: str, title: str) -> Markup:
    """Observed against predicted frequency with Wilson intervals, and how many volumes each bin holds."""
    first = next(iter(series.values()))
    what = f"of {first.classes[1]}" if first.is_binary else "of the decided class"
    with figure_style():
        figure = Figure(figsize=(4.6, 5.0), layout="constrained")
        axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.7, linestyle=(0, (2, 2)))
        for index, (label, scores) in enumerate(series.items()):
            bins = reliability_bins(scores)
            # Beside each other, so that the whiskers of two models do not hide one another.
            shift = 0.008 * (index - (len(series) - 1) / 2)
            _draw_bins(axes, bins, index, f"{label}  {score_metrics(scores)['ece']:.3f}", shift=shift)
            counts.bar(
                bins.predicted + 2 * shift, bins.counts, width=0.014, color=SERIES[index % len(SERIES)]
            )
        _unit_square(axes, "", f"Observed frequency {what}")
        counts.set(xlabel=f"Predicted probability {what}", ylabel="Volumes")
        counts.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.legend(loc="best", title="Calibration error", alignment="left")
        return svg_markup(figure, name=name, title=title)


def one_against_rest(scores: Scores, klass: int) -> dict[str, float]:
    """Metrics of one class against the rest under their two-class names."""
    metrics = score_metrics(scores)
    if scores.is_binary:
        return metrics
    suffix = f"[{scores.classes[klass]}]"
    return {key.removesuffix(suffix): value for key, value in metrics.items() if key.endswith(suffix)}


def _draw_curve(axes: Axes, curve: Curve, index: int, label: str, *, steps: bool = False) -> None:
    style = series_style(index)
    axes.fill_between(curve.grid, curve.low, curve.high, color=style["color"], alpha=0.14, linewidth=0)
    axes.plot(curve.x, curve.y, label=label, drawstyle="steps-pre" if steps else "default", **style)


def _draw_bins(axes: Axes, bins: Reliability, index: int, label: str, *, shift: float) -> None:
    style = series_style(index)
    x = bins.predicted + shift
    axes.vlines(x, bins.low, bins.high, color=style["color"], linewidth=0.8, alpha=0.6)
    axes.plot(x, bins.observed, marker="o", markersize=4, label=label, **style)


def _marker(index: int) -> dict[str, Any]:
    """The operating point on a curve, filled with the paper's colour so that the line stays visible."""
    colour = SERIES[index % len(SERIES)]
    return {"marker": "o", "markersize": 6, "color": PAPER, "markeredgecolor": colour, "markeredgewidth": 1.5}


def _unit_square(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03), xlabel=x_label, ylabel=y_label)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.grid(visible=True)
    axes.tick_params(colors=MUTED, labelcolor=INK)


PREFERRED = ("loss", "auc", "balanced_accuracy", "accuracy")


def history_panels(history: Sequence[Row]) -> tuple[str, ...]:
    """The two quantities worth a panel each: the loss, and the best of the metrics that were followed."""
    present = [name for name in PREFERRED if any(history_points(history, name).values())]
    return tuple(present[: 2 if present[:1] == ["loss"] else 1])


def history_points(history: Sequence[Row], quantity: str) -> dict[str, list[tuple[float, float]]]:
    """Training and validation values of a quantity as (epoch from 1, value), undefined ones left out."""
    found: dict[str, list[tuple[float, float]]] = {"training": [], "validation": []}
    for number, row in enumerate(history, start=1):
        for kind, column in (("training", quantity), ("validation", f"val_{quantity}")):
            value = as_number(row.get(column))
            if math.isfinite(value):
                found[kind].append((number, value))
    return found


def history_figure(histories: Mapping[str, Sequence[Row]], quantity: str, *, name: str, title: str) -> Markup:
    """One quantity over epochs: of one run both training and validation, of several runs validation only."""
    with figure_style():
        figure, axes = new_axes(height=3.2)
        index = 0
        for label, history in histories.items():
            for kind, points in history_points(history, quantity).items():
                if not points or (len(histories) > 1 and kind == "training"):
                    continue
                text = kind if len(histories) == 1 else label
                epochs, values = zip(*points, strict=True)
                axes.plot(epochs, values, label=text, marker=_marker_trends(points), **series_style(index))
                index += 1
        axes.set(xlabel="Epoch", ylabel=metric_label(quantity).capitalize().replace("Roc auc", "ROC AUC"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True)
        axes.legend(title="" if len(histories) == 1 else "Validation")
        return svg_markup(figure, name=name, title=title)


def forest_figure(
    metrics: Mapping[str, Mapping[str, object]], metric: str, *, name: str, title: str
) -> Markup:
    """A metric of several models as points with intervals, one row each."""
    with figure_style():
        figure, axes = new_axes(height=0.9 + 0.36 * len(metrics))
        for row, block in enumerate(metrics.values()):
            _whisker(axes, row, as_number(block.get(metric)), interval_of(block, metric), SERIES[row % 8])
        _rows(axes, tuple(metrics), metric_label(metric))
        return svg_markup(figure, name=name, title=title)


def difference_figure(comparisons: Sequence[Comparison], *, name: str, title: str) -> Markup:
    """Differences of the primary metric as points with intervals around the line of no difference."""
    with figure_style():
        figure, axes = new_axes(height=0.9 + 0.36 * len(comparisons))
        axes.axvline(0, color=MUTED, linewidth=0.9)
        for row, one in enumerate(comparisons):
            found = one.differences[one.primary]
            _whisker(axes, row, found.difference, (found.low, found.high), INK)
        labels = tuple(f"{one.second} \N{MINUS SIGN} {one.first}" for one in comparisons)
        _rows(axes, labels, f"Difference of {metric_label(comparisons[0].primary)}")
        reach = max(abs(bound) for bound in axes.get_xlim())
        axes.set_xlim(-reach, reach)
        return svg_markup(figure, name=name, title=title)


def as_number(value: object) -> float:
    """A number or its text as float; nan for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan


def _whisker(axes: Axes, row: int, value: float, pair: tuple[float, float] | None, colour: str) -> None:
    if pair is not None and all(math.isfinite(end) for end in pair):
        axes.hlines(row, *pair, color=colour, linewidth=1.6)
        axes.vlines(pair, row - 0.13, row + 0.13, color=colour, linewidth=1.2)
    axes.plot(value, row, marker="o", markersize=6, color=colour, linestyle="none")


def _rows(axes: Axes, labels: Sequence[str], x_label: str) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(x_label)
    axes.grid(visible=True, axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)


def _marker_trends(points: Sequence[object]) -> str:
    """Dots where a line would be too short to see."""
    return "o" if len(points) < 3 else ""
