"""Figures of the study of the architecture: score against cost, and what every change does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from app.report.quantities import format_quantity
from app.report.style import INK, MUTED, SERIES, figure_style
from app.studies.architecture.advice import UNITS
from app.studies.architecture.points import BASE, Variant
from app.studies.scoring import PointScore, Standing

WIDTH = 7.2


def draw_front(
    variants: Sequence[Variant], scores: Mapping[str, PointScore], front: Sequence[str], *, cost: str
) -> Figure:
    """AUC over cost; colours are the settings changed, the line is the Pareto front."""
    name, unit = UNITS[cost]
    known = [variant for variant in variants if variant.label in scores]
    with figure_style():
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        axes = figure.subplots()
        line = [(scores[label].cost[cost], scores[label].auc) for label in front]
        axes.step(
            *zip(*line, strict=True), where="post", color=MUTED, linewidth=1.0, label="Pareto front", zorder=1
        )
        for variant in known:
            _draw_point(axes, variant, scores[variant.label], cost, colour=_colour(variant, known))
        _label_points(axes, [(v.name, scores[v.label].cost[cost], scores[v.label].auc) for v in known])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_quantity(float(value), unit)))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
        axes.set(xlabel=f"{name[0].upper()}{name[1:]} (logarithmic)", ylabel="Validation ROC AUC")
        axes.margins(x=0.12, y=0.12)
        axes.grid(visible=True)
        axes.legend(loc="lower right")
        return figure


def draw_effects(
    variants: Sequence[Variant], scores: Mapping[str, PointScore], against_base: Mapping[str, Standing]
) -> Figure:
    """Every variant's difference of AUC from the base with its interval, grouped by the setting changed."""
    known = [variant for variant in variants if variant.label in against_base and variant.label in scores]
    with figure_style():
        figure = Figure(figsize=(WIDTH, 0.9 + 0.3 * len(known)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=MUTED, linewidth=0.9)
        for row, variant in enumerate(known):
            one, colour = against_base[variant.label], _colour(variant, known)
            axes.plot([one.low, one.high], [row, row], color=colour, linewidth=1.4)
            axes.plot(one.difference, row, "o", color=INK, markersize=4.5)
        axes.set_yticks(range(len(known)), [variant.name for variant in known])
        axes.invert_yaxis()
        axes.set_xlabel(f"Difference of validation AUC from the {BASE}, 95 % interval")
        axes.grid(visible=True, axis="x")
        return figure


def _draw_point(axes: Axes, variant: Variant, one: PointScore, cost: str, *, colour: str) -> None:
    marker = "D" if variant.label == BASE else "o"
    axes.plot(one.cost[cost], one.auc, marker, color=colour, markersize=6, zorder=3)
    if len(one.by_seed) > 1:
        axes.plot([one.cost[cost]] * len(one.by_seed), one.by_seed, "_", color=colour, markersize=7, zorder=2)


def _label_points(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Names beside their points; those that share a place share one label, the others step out of the way."""
    lowest, highest = min(auc for *_, auc in points), max(auc for *_, auc in points)
    height = max(highest - lowest, 1e-3)
    placed: list[tuple[float, float]] = []
    for name, cost, auc in sorted(points, key=lambda point: (point[1], -point[2])):
        x, y = float(np.log10(cost)), auc
        clashes = sum(
            abs(x - other) < 0.18 and abs(y - height_of) < 0.05 * height for other, height_of in placed
        )
        placed.append((x, y))
        axes.annotate(
            name, (cost, auc), xytext=(6, 5 - 9 * clashes), textcoords="offset points", fontsize=7, color=INK
        )


def _colour(variant: Variant, known: Sequence[Variant]) -> str:
    factors = list(dict.fromkeys(one.factor for one in known if one.factor))
    return INK if not variant.factor else SERIES[factors.index(variant.factor) % len(SERIES)]
