"""Figures of the study of complexity: costs over voxels on logarithmic axes, and ratios to the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from voxlift.app.report.formatting import format_quantity
from voxlift.app.report.style import figure_style, series_shape, series_style
from voxlift.app.studies.complexity.laws import (
    QUANTITIES,
    Cost,
    costs_by_model,
    fit_laws,
    ratio_to,
    say_exponent,
)

WIDTH = 7.2
PANELS = ("flops", "activation_bytes", "train_seconds", "infer_seconds")


def draw_growth(costs: Sequence[Cost]) -> Figure:
    """Each cost over the voxels of the volume, with its fitted power law; the legends say the exponents."""
    with figure_style():
        figure = Figure(figsize=(WIDTH, 6.0), layout="constrained")
        for axes, quantity in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
            _draw_quantity(axes, costs, quantity)
        return figure


def draw_ratios(costs: Sequence[Cost], baseline: str) -> Figure:
    """What each model costs in units of the baseline, on volumes of the same size."""
    with figure_style():
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        panels = figure.subplots(1, 3)
        for axes, quantity in zip(panels, ("flops", "activation_bytes", "train_seconds"), strict=True):
            ratios = ratio_to(costs, baseline, quantity)
            for index, (name, of_model) in enumerate(costs_by_model(costs).items()):
                known = [cost for cost in of_model if (name, cost.voxels) in ratios]
                values = [ratios[name, cost.voxels] for cost in known]
                style: dict[str, Any] = {
                    "marker": series_shape(index),
                    "markersize": 5,
                    **series_style(index),
                }
                axes.plot([cost.voxels for cost in known], values, label=name, **style)
            axes.set_title(QUANTITIES[quantity][0])
            _voxel_axis(axes, costs)
            axes.set_ylim(0, 1.1 * axes.dataLim.ymax)
        panels[0].set_ylabel(f"Times {baseline}")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        return figure


def _draw_quantity(axes: Axes, costs: Sequence[Cost], quantity: str) -> None:
    title, unit = QUANTITIES[quantity]
    laws = fit_laws(costs, quantity)
    for index, (name, of_model) in enumerate(costs_by_model(costs).items()):
        style, law = series_style(index), laws[name]
        voxels = np.array([cost.voxels for cost in of_model])
        values = [float(getattr(cost, quantity)) for cost in of_model]
        label = f"{name}  {say_exponent(law)}"
        axes.plot(voxels, values, series_shape(index), color=style["color"], markersize=4.5, label=label)
        if law is not None:
            axes.plot(voxels, [law.at(float(one)) for one in voxels], **{**style, "linewidth": 1.1})
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=_ticks_of_a_decade(axes)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_quantity(float(value), unit)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title(title)
    _voxel_axis(axes, costs)
    _make_room_above(axes, share=0.12 + 0.07 * len(laws))
    legend: dict[str, Any] = {"loc": "upper left", "alignment": "left", "borderaxespad": 0.2}
    axes.legend(title="Exponent of the voxels", fontsize=7, title_fontsize=7, **legend)


def _ticks_of_a_decade(axes: Axes) -> tuple[float, ...]:
    """Few enough ticks over many decades, enough of them within one."""
    low, high = axes.dataLim.intervaly
    return (1.0, 2.0, 5.0) if high < 30 * low else (1.0, 3.0) if high < 1000 * low else (1.0,)


def _make_room_above(axes: Axes, *, share: float) -> None:
    """Leave that share of the logarithmic axis free above the data, for the legend."""
    low, high = np.log10(axes.dataLim.intervaly)
    height = max(high - low, 0.3)
    axes.set_ylim(10 ** (low - 0.06 * height), 10 ** (high + height * (share / (1 - share) + 0.06)))


def _voxel_axis(axes: Axes, costs: Sequence[Cost]) -> None:
    sizes = {cost.voxels: cost.shape for cost in sorted(costs, key=lambda cost: cost.voxels)}
    axes.set_xscale("log")
    chosen = _apart(list(sizes))
    axes.set_xticks(chosen, [_size(sizes[voxels]) for voxels in chosen])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Volume, voxels")
    axes.grid(visible=True)


def _size(shape: tuple[int, ...]) -> str:
    """A volume's sides; those of a cube as a power."""
    sides = shape[:3]
    return (
        f"{sides[0]}\N{SUPERSCRIPT THREE}"
        if len(set(sides)) == 1
        else "\N{MULTIPLICATION SIGN}".join(map(str, sides))
    )


def _apart(voxels: list[int], most: int = 4) -> list[int]:
    """At most four of the sizes, the ends among them, so that their labels do not touch."""
    picked = np.linspace(0, len(voxels) - 1, min(most, len(voxels)))
    return [voxels[round(float(place))] for place in picked]
