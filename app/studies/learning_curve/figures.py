"""Draw the figures of the study of the learning curve: scores over subjects, and their difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from voxlift.app.evaluation.metric_names import metric_label
from voxlift.app.evaluation.paired import Comparison
from voxlift.app.report.pages import (
    INK,
    MUTED,
    assign_colours,
    figure_style,
    legend_label,
    new_axes,
    series_marker,
    series_style,
)
from voxlift.app.studies.learning_curve.curves import Curve


def draw_curves(curves: Mapping[str, Curve], *, metric: str) -> Figure:
    """Draw each model's scores with intervals and seeds, and its power law with a band."""
    with figure_style():
        figure, axes = new_axes(width=5.8, height=3.8)
        places = assign_colours(curve.model for curve in curves.values())
        for number, curve in enumerate(curves.values()):
            index = places[curve.model]
            style = series_style(index)
            colour = style["color"]
            shift = 1 + 0.02 * (number - 0.5)  # so that no interval covers another
            low, high = np.quantile(curve.band, [0.025, 0.975], axis=0)
            axes.fill_between(curve.grid, low, high, color=colour, alpha=0.14, linewidth=0)
            axes.plot(curve.grid, curve.law.predict(curve.grid), label=legend_label(curve.model), **style)
            axes.vlines(curve.subjects * shift, *curve.intervals, color=colour, linewidth=1.0)
            axes.plot(curve.subjects * shift, curve.scores, series_marker(index), color=colour, markersize=5)
            for seed in curve.by_seed.T:
                axes.plot(curve.subjects * shift, seed, "_", color=colour, markersize=6, alpha=0.7)
        _format_subjects(axes, next(iter(curves.values())))
        axes.set_ylabel(metric_label(metric))
        axes.legend(loc="best")
        return figure


def draw_difference(
    curves: Mapping[str, Curve], pairs: Mapping[int, Comparison], *, metric: str, margin: float
) -> Figure:
    """Draw the difference of the two models at each size with interval, and that of the curves with band."""
    first, second = curves.values()
    with figure_style():
        figure, axes = new_axes(width=5.8, height=3.4)
        axes.axhline(0, color=MUTED, linewidth=0.9)
        axes.axhspan(-margin, margin, color=MUTED, alpha=0.15, linewidth=0)
        count = min(len(first.band), len(second.band))
        low, high = np.quantile(second.band[:count] - first.band[:count], [0.025, 0.975], axis=0)
        axes.fill_between(first.grid, low, high, color=INK, alpha=0.14, linewidth=0)  # no model's colour
        axes.plot(first.grid, second.law.predict(first.grid) - first.law.predict(first.grid), color=INK)
        found = [one.differences[metric] for one in pairs.values()]
        axes.vlines(
            list(pairs), [one.low for one in found], [one.high for one in found], color=INK, linewidth=1
        )
        axes.plot(list(pairs), [one.difference for one in found], "o", color=INK, markersize=5)
        _format_subjects(axes, first)
        axes.set_ylabel(f"{second.model} \N{MINUS SIGN} {first.model}")
        return figure


def _format_subjects(axes: Axes, curve: Curve) -> None:
    axes.set_xscale("log")
    ticks: Sequence[float] = [*curve.subjects, 2 * curve.subjects[-1]]
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.axvline(curve.subjects[-1], color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set_xlabel("Training subjects")
    axes.grid(visible=True)
