"""Draw the figures of the study of the architecture: score against cost, and the effect of every change."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from voxlift.app.report.pages import INK, MUTED, PAPER, SERIES, figure_style, series_marker
from voxlift.app.report.point_labels import label_points
from voxlift.app.report.tables import format_quantity
from voxlift.app.studies.architecture.points import BASE, COSTS, Variant
from voxlift.app.studies.trainings import PointDifference, PointScore, long_metric_name

WIDTH = 7.2
HOLLOW: dict[str, Any] = {"markersize": 6.5, "markerfacecolor": "none", "markeredgewidth": 1.4}
MOST_NAMED = 20  # points: if there are more, only the base and those on the front are named


def draw_front(
    variants: Sequence[Variant], points: Mapping[str, PointScore], front: Sequence[str], *, cost: str
) -> Figure:
    """Draw the score over cost: colour and shape show the changed setting, the line is the Pareto front."""
    name, unit = COSTS[cost]
    known = [variant for variant in variants if variant.label in points]
    with figure_style():
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        axes = figure.subplots()
        line = [(points[label].cost[cost], points[label].score) for label in front]
        axes.step(*zip(*line, strict=True), where="post", color=MUTED, linewidth=1.0, zorder=1)
        for variant in known:
            _draw_point(axes, points[variant.label], cost, style=_point_style(variant, known))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_quantity(float(value), unit)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(
            xlabel=f"{name[0].upper()}{name[1:]} (logarithmic)",
            ylabel=f"Validation {long_metric_name(points)}",
        )
        axes.margins(x=0.12, y=0.1)
        axes.grid(visible=True)
        figure.legend(
            handles=_build_legend(known), loc="outside right upper", title="Changed", alignment="left"
        )
        first = [v for v in known if v.label == BASE or v.label in front]
        named = [*first, *(v for v in known if v not in first)] if len(known) <= MOST_NAMED else first
        names = [(points[v.label].cost[cost], points[v.label].score, _format_short_name(v)) for v in named]
        unnamed = [(points[v.label].cost[cost], points[v.label].score) for v in known if v not in named]
        label_points(axes, names, others=[*unnamed, *_sample_steps(line)])
        return figure


def draw_effects(
    variants: Sequence[Variant], points: Mapping[str, PointScore], from_base: Mapping[str, PointDifference]
) -> Figure:
    """Draw every variant's difference from the base with its interval; filled: better or worse."""
    known = [variant for variant in variants if variant.label in from_base and variant.label in points]
    with figure_style():
        figure = Figure(figsize=(WIDTH, 1.3 + 0.3 * len(known)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=MUTED, linewidth=0.9)
        for row, variant in enumerate(known):
            one, style = from_base[variant.label], _point_style(variant, known)
            fill = style["color"] if one.is_worse or one.is_better else PAPER
            axes.plot([one.low, one.high], [row, row], color=style["color"], linewidth=1.4, zorder=2)
            axes.plot(one.difference, row, markersize=6, markerfacecolor=fill, zorder=3, **style)
        axes.set_yticks(range(len(known)), [variant.name for variant in known])
        axes.invert_yaxis()
        axes.set_xlabel(
            f"Difference of validation {long_metric_name(points)} from the {BASE}, with 95 % interval"
        )
        axes.grid(visible=True, axis="x")
        shapes: dict[str, Any] = {"color": MUTED, "marker": "o", "linestyle": "none", "markersize": 6}
        significant = Line2D([], [], label="better or worse than the base", **shapes)
        other = Line2D([], [], markerfacecolor=PAPER, label="equivalent, or cannot tell", **shapes)
        figure.legend(handles=[significant, other], loc="outside lower center", ncols=2)
        return figure


def _draw_point(axes: Axes, one: PointScore, cost: str, *, style: Mapping[str, Any]) -> None:
    """Draw a hollow marker, so that overlapping ones are visible, and a short bar for every seed."""
    axes.plot(one.cost[cost], one.score, zorder=3, **HOLLOW, **style)
    if len(one.by_seed) > 1:
        places = [one.cost[cost]] * len(one.by_seed)
        axes.plot(places, one.by_seed, "_", color=style["color"], markersize=7, zorder=2)


def _build_legend(known: Sequence[Variant]) -> list[Line2D]:
    """Return a marker for the base and for each setting, and the line of the front."""
    firsts = {variant.factor: variant for variant in known}
    markers = [
        Line2D(
            [], [], linestyle="none", label=_format_factor(factor), **HOLLOW, **_point_style(variant, known)
        )
        for factor, variant in firsts.items()
    ]
    return [*markers, Line2D([], [], color=MUTED, linewidth=1.0, label="Pareto front")]


def _format_factor(factor: str) -> str:
    return factor.rpartition(".")[2] or "nothing (base)"


def _format_short_name(variant: Variant) -> str:
    """Return the value alone where one setting was changed: the marker shows which one."""
    return variant.name if variant.factor in {"", "several"} else variant.name.partition(" ")[2]


def _sample_steps(line: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield points along the steps of the front, dense enough to keep names off it."""
    for (cost, auc), (next_cost, next_auc) in itertools.pairwise(line):
        yield from ((float(x), auc) for x in np.geomspace(cost, next_cost, 40))
        yield from ((next_cost, float(y)) for y in np.linspace(auc, next_auc, 10))


def _point_style(variant: Variant, known: Sequence[Variant]) -> dict[str, Any]:
    """Return colour and shape of the changed setting; the base is a dark diamond."""
    if not variant.factor:
        return {"color": INK, "marker": "D"}
    factors = list(dict.fromkeys(one.factor for one in known if one.factor))
    index = factors.index(variant.factor)
    shapes = [shape for shape in map(series_marker, range(len(SERIES))) if shape != "D"]
    return {"color": SERIES[index % len(SERIES)], "marker": shapes[index % len(shapes)]}
