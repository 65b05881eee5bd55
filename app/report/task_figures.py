"""Draw the figures of findings, grades and numbers: grids of curves, scatter and Bland-Altman plots."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voxlift.app.evaluation.curves import precision_recall_curve, roc_curve
from voxlift.app.evaluation.metrics import score_metrics
from voxlift.app.evaluation.numbers import AGREEMENT, Numbers
from voxlift.app.evaluation.scores import Floats, Scores
from voxlift.app.report.figures import DASHED, draw_curve
from voxlift.app.report.pages import (
    INK,
    MUTED,
    PAPER,
    SERIES,
    assign_colours,
    figure_style,
    new_axes,
    series_marker,
    svg_markup,
)
from voxlift.app.report.tables import format_value

DEFAULT_THRESHOLD = 0.5  # of scores for which none was chosen
COLUMNS = 2  # of a grid: its panels are then as readable on a phone as the other figures
PANEL = 2.3  # inches
TICKS = (0, 0.5, 1.0)
CURVES = {
    "roc": ("auc", "False positive rate", "Sensitivity"),
    "pr": ("average_precision", "Recall", "Precision"),
}


def curve_grid(
    panels: Mapping[str, Mapping[str, Scores]],
    *,
    kind: str,
    name: str,
    title: str,
    colours: Mapping[str, int] | None = None,
) -> Markup:
    """Draw ROC or precision-recall curves with 95 % bands, one panel for each yes/no outcome.

    Args:
        panels: Outcome to legend entry (a model; empty for the only one) to scores of two classes.
        kind: `roc` or `pr`.
        name: Unique on the page.
        title: Accessible name.
        colours: Legend entry to the index of its series, see `assign_colours`; None: in the order given.
    """
    colours = colours or assign_colours(name for series in panels.values() for name in series)
    rows = -(-len(panels) // COLUMNS)
    with figure_style():
        figure = Figure(figsize=(COLUMNS * PANEL, rows * PANEL + 0.2), layout="constrained")
        grid = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, (outcome, series) in zip(grid, panels.items(), strict=False):
            _draw_panel(axes, outcome, series, kind, colours)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[-COLUMNS:]:
            axes.set_xlabel(CURVES[kind][1])
        for axes in grid[::COLUMNS]:
            axes.set_ylabel(CURVES[kind][2])
        return svg_markup(figure, name=name, title=title)


def _draw_panel(
    axes: Axes, outcome: str, series: Mapping[str, Scores], kind: str, colours: Mapping[str, int]
) -> None:
    metric = CURVES[kind][0]
    for label, scores in series.items():
        metrics = score_metrics(scores)
        curve = roc_curve(scores) if kind == "roc" else precision_recall_curve(scores)
        text = f"{label}  {format_value(metrics[metric])}".strip()
        draw_curve(axes, curve, colours[label], text, steps=kind == "pr")
        if kind == "roc" and len(series) == 1 and scores.threshold != DEFAULT_THRESHOLD:
            _draw_threshold(axes, metrics)
        if kind == "pr":
            axes.axhline(float(scores.labels.mean()), **DASHED)
    if kind == "roc":
        axes.plot([0, 1], [0, 1], **DASHED)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.05), xticks=TICKS, yticks=TICKS, title=outcome)
    axes.grid(visible=True)
    axes.legend(loc="lower right" if kind == "roc" else "best", handlelength=1.2, fontsize=7.5)


def _draw_threshold(axes: Axes, metrics: Mapping[str, float]) -> None:
    axes.plot(
        1 - metrics["specificity"], metrics["sensitivity"], marker="o", markersize=5, markeredgewidth=1.3,
        markerfacecolor=PAPER, markeredgecolor=SERIES[0], linestyle="none", zorder=5,
    )  # fmt: skip


def scatter_figure(
    numbers: Numbers, *, limits: tuple[float, float], index: int = 0, name: str, title: str
) -> Markup:
    """Draw predicted against measured numbers with the line of identity and the fitted line.

    Args:
        numbers: Of one model.
        limits: Of both axes, the same for every model of a page; see `number_limits`.
        index: Of the model, for its colour.
        name: Unique on the page.
        title: Accessible name.
    """
    with figure_style():
        figure, axes = new_axes()
        axes.plot(limits, limits, **DASHED)
        _draw_points(axes, numbers.labels, numbers.values, index)
        if np.ptp(numbers.labels) > 0:
            slope, intercept = np.polyfit(numbers.labels, numbers.values, 1)
            ends = np.array([numbers.labels.min(), numbers.labels.max()])
            axes.plot(ends, intercept + slope * ends, color=INK, linewidth=1.2)
        if np.isfinite(numbers.training_mean):
            axes.axhline(numbers.training_mean, color=MUTED, linewidth=0.7, linestyle=(0, (1, 2)))
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.set(xlabel=with_unit(f"Measured {numbers.name}".strip(), numbers.unit))
        axes.set(ylabel=with_unit("Predicted", numbers.unit))
        axes.grid(visible=True)
        return svg_markup(figure, name=name, title=title)


def bland_altman_figure(numbers: Numbers, *, span: float, index: int = 0, name: str, title: str) -> Markup:
    """Draw the error over the mean of measured and predicted, with mean error and limits of agreement.

    Args:
        numbers: Of one model.
        span: Largest error on the axis, the same for every model of a page.
        index: Of the model, for its colour.
        name: Unique on the page.
        title: Accessible name.

    Source:
        Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8.
    """
    metrics = score_metrics(numbers)
    with figure_style():
        figure, axes = new_axes()
        axes.axhline(0, color=MUTED, linewidth=0.7)
        _draw_points(axes, (numbers.labels + numbers.values) / 2, numbers.errors, index)
        for key, style in (("mean_error", "-"), ("agreement_low", "--"), ("agreement_high", "--")):
            if np.isfinite(metrics[key]):
                axes.axhline(metrics[key], color=INK, linewidth=1.1, linestyle=style)
                axes.annotate(
                    format_value(metrics[key]), (1, metrics[key]), xycoords=("axes fraction", "data"),
                    xytext=(2, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK,
                )  # fmt: skip
        axes.set(ylim=(-span, span), ylabel=with_unit("Predicted \N{MINUS SIGN} measured", numbers.unit))
        axes.set(xlabel=with_unit("Mean of measured and predicted", numbers.unit))
        axes.grid(visible=True)
        return svg_markup(figure, name=name, title=title)


def number_limits(*models: Numbers) -> tuple[float, float]:
    """Return limits that hold every measured and predicted number, with some space around them."""
    values = np.concatenate([part for one in models for part in (one.labels, one.values)])
    space = 0.05 * (np.ptp(values) or 1.0)
    return float(values.min() - space), float(values.max() + space)


def error_span(*models: Numbers) -> float:
    """Return the largest error, or limit of agreement, of any model, with some space."""
    found = []
    for one in models:
        spread = float(one.errors.std(ddof=1)) if len(one) > 1 else 0.0
        found += [float(np.abs(one.errors).max()), abs(float(one.errors.mean())) + AGREEMENT * spread]
    return 1.1 * max(found) or 1.0


def with_unit(text: str, unit: str) -> str:
    """Return a label with its unit in brackets, where there is one.

    >>> with_unit("MAE", "years"), with_unit("MAE", "")
    ('MAE (years)', 'MAE')
    """
    return f"{text} ({unit})" if unit else text


def _draw_points(axes: Axes, x: Floats, y: Floats, index: int) -> None:
    size = 5 if len(x) <= 60 else 4 if len(x) <= 200 else 2.5
    axes.plot(
        x, y, linestyle="none", marker=series_marker(index), markersize=size, markeredgewidth=0, alpha=0.65,
        color=SERIES[index % len(SERIES)],
    )  # fmt: skip
