"""Figures of the study of the architecture: score against cost, and what every change does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from voxlift.app.report.formatting import format_quantity
from voxlift.app.report.style import INK, MUTED, PAPER, SERIES, figure_style, label_points, series_shape
from voxlift.app.studies.architecture.advice import UNITS
from voxlift.app.studies.architecture.points import BASE, Variant
from voxlift.app.studies.scoring import PointScore, Standing

WIDTH = 7.2
HOLLOW: dict[str, Any] = {"markersize": 6.5, "markerfacecolor": "none", "markeredgewidth": 1.4}
NAMED = 20  # points: of more, only the base and those on the front get a name


def draw_front(
    variants: Sequence[Variant], scores: Mapping[str, PointScore], front: Sequence[str], *, cost: str
) -> Figure:
    """AUC over cost; colour and shape are the settings changed, the line is the Pareto front."""
    name, unit = UNITS[cost]
    known = [variant for variant in variants if variant.label in scores]
    with figure_style():
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        axes = figure.subplots()
        line = [(scores[label].cost[cost], scores[label].auc) for label in front]
        axes.step(*zip(*line, strict=True), where="post", color=MUTED, linewidth=1.0, zorder=1)
        for variant in known:
            _draw_point(axes, scores[variant.label], cost, style=_style(variant, known))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_quantity(float(value), unit)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel=f"{name[0].upper()}{name[1:]} (logarithmic)", ylabel="Validation ROC AUC")
        axes.margins(x=0.12, y=0.1)
        axes.grid(visible=True)
        figure.legend(handles=_legend(known), loc="outside right upper", title="Changed", alignment="left")
        first = [v for v in known if v.label == BASE or v.label in front]
        named = [*first, *(v for v in known if v not in first)] if len(known) <= NAMED else first
        points = [(scores[v.label].cost[cost], scores[v.label].auc, _short_name(v)) for v in named]
        left = [(scores[v.label].cost[cost], scores[v.label].auc) for v in known if v not in named]
        label_points(axes, points, others=[*left, *_along(line)])
        return figure


def draw_effects(
    variants: Sequence[Variant], scores: Mapping[str, PointScore], against_base: Mapping[str, Standing]
) -> Figure:
    """Every variant's difference of AUC from the base with its interval; hollow where not told apart."""
    known = [variant for variant in variants if variant.label in against_base and variant.label in scores]
    with figure_style():
        figure = Figure(figsize=(WIDTH, 1.3 + 0.3 * len(known)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=MUTED, linewidth=0.9)
        for row, variant in enumerate(known):
            one, style = against_base[variant.label], _style(variant, known)
            fill = style["color"] if one.is_worse or one.is_better else PAPER
            axes.plot([one.low, one.high], [row, row], color=style["color"], linewidth=1.4, zorder=2)
            axes.plot(one.difference, row, markersize=6, markerfacecolor=fill, zorder=3, **style)
        axes.set_yticks(range(len(known)), [variant.name for variant in known])
        axes.invert_yaxis()
        axes.set_xlabel(f"Difference of validation ROC AUC from the {BASE}, with 95 % interval")
        axes.grid(visible=True, axis="x")
        shapes: dict[str, Any] = {"color": MUTED, "marker": "o", "linestyle": "none", "markersize": 6}
        told = Line2D([], [], label="told apart", **shapes)
        untold = Line2D(
            [], [], markerfacecolor=PAPER, label="not told apart (interval and Holm-adjusted p)", **shapes
        )
        figure.legend(handles=[told, untold], loc="outside lower center", ncols=2)
        return figure


def _draw_point(axes: Axes, one: PointScore, cost: str, *, style: Mapping[str, Any]) -> None:
    """A hollow marker, so that one upon another is seen, and a short bar for every seed."""
    axes.plot(one.cost[cost], one.auc, zorder=3, **HOLLOW, **style)
    if len(one.by_seed) > 1:
        places = [one.cost[cost]] * len(one.by_seed)
        axes.plot(places, one.by_seed, "_", color=style["color"], markersize=7, zorder=2)


def _legend(known: Sequence[Variant]) -> list[Line2D]:
    """A marker for the base and for each setting, and the line of the front."""
    firsts = {variant.factor: variant for variant in known}
    markers = [
        Line2D([], [], linestyle="none", label=_factor_name(factor), **HOLLOW, **_style(variant, known))
        for factor, variant in firsts.items()
    ]
    return [*markers, Line2D([], [], color=MUTED, linewidth=1.0, label="Pareto front")]


def _factor_name(factor: str) -> str:
    return factor.rpartition(".")[2] or "nothing (base)"


def _short_name(variant: Variant) -> str:
    """The value alone where one setting was changed: its marker says which."""
    return variant.name if variant.factor in {"", "several"} else variant.name.partition(" ")[2]


def _along(line: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Points along the steps of the front, close enough to keep names off it."""
    for (cost, auc), (next_cost, next_auc) in itertools.pairwise(line):
        yield from ((float(x), auc) for x in np.geomspace(cost, next_cost, 40))
        yield from ((next_cost, float(y)) for y in np.linspace(auc, next_auc, 10))


def _style(variant: Variant, known: Sequence[Variant]) -> dict[str, Any]:
    """Colour and shape of the setting that was changed; the base is an inky diamond."""
    if not variant.factor:
        return {"color": INK, "marker": "D"}
    factors = list(dict.fromkeys(one.factor for one in known if one.factor))
    index = factors.index(variant.factor)
    shapes = [shape for shape in map(series_shape, range(len(SERIES))) if shape != "D"]
    return {"color": SERIES[index % len(SERIES)], "marker": shapes[index % len(shapes)]}
