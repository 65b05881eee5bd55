"""Draw the figures of the study of complexity: costs over voxels, and ratios to the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from voxlift.app.report.pages import assign_colours, figure_style, series_marker, series_style
from voxlift.app.report.tables import format_quantity
from voxlift.app.studies.complexity.laws import (
    QUANTITIES,
    ModelCost,
    compute_ratios,
    fit_laws,
    format_exponent,
    group_costs,
)

WIDTH = 7.2
PANELS = ("flops", "activation_bytes", "train_seconds", "infer_seconds")


def draw_costs(costs: Sequence[ModelCost]) -> Figure:
    """Draw each cost over the voxels of the volume with its fitted power law; legends show the exponents."""
    with figure_style():
        figure = Figure(figsize=(WIDTH, 6.0), layout="constrained")
        for axes, quantity in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
            _draw_quantity(axes, costs, quantity)
        return figure


def draw_ratios(costs: Sequence[ModelCost], baseline: str) -> Figure:
    """Draw the costs of each model divided by those of the baseline on volumes of the same size."""
    with figure_style():
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        panels = figure.subplots(1, 3)
        for axes, quantity in zip(panels, ("flops", "activation_bytes", "train_seconds"), strict=True):
            ratios = compute_ratios(costs, baseline, quantity)
            places = assign_colours(group_costs(costs))
            for name, of_model in group_costs(costs).items():
                index = places[name]
                known = [cost for cost in of_model if (name, cost.voxels) in ratios]
                values = [ratios[name, cost.voxels] for cost in known]
                style: dict[str, Any] = {"markersize": 5, **series_style(index)}
                voxels = [cost.voxels for cost in known]
                axes.plot(voxels, values, marker=series_marker(index), label=name, **style)
            axes.set_title(QUANTITIES[quantity][0])
            _format_voxel_axis(axes, costs)
            axes.set_ylim(0, 1.1 * axes.dataLim.ymax)
        panels[0].set_ylabel(f"Times {baseline}")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        return figure


def _draw_quantity(axes: Axes, costs: Sequence[ModelCost], quantity: str) -> None:
    title, unit = QUANTITIES[quantity]
    laws = fit_laws(costs, quantity)
    places = assign_colours(group_costs(costs))
    for name, of_model in group_costs(costs).items():
        index = places[name]
        style, law = series_style(index), laws[name]
        voxels = np.array([cost.voxels for cost in of_model])
        values = [float(getattr(cost, quantity)) for cost in of_model]
        label = f"{name}  {format_exponent(law)}"
        axes.plot(voxels, values, series_marker(index), color=style["color"], markersize=4.5, label=label)
        if law is not None:
            axes.plot(voxels, [law.predict(float(one)) for one in voxels], **{**style, "linewidth": 1.1})
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=_decade_ticks(axes)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_quantity(float(value), unit)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title(title)
    _format_voxel_axis(axes, costs)
    _reserve_space_above(axes, share=0.12 + 0.07 * len(laws))
    legend: dict[str, Any] = {"loc": "upper left", "alignment": "left", "borderaxespad": 0.2}
    axes.legend(title="Exponent of the voxels", fontsize=7, title_fontsize=7, **legend)


def _decade_ticks(axes: Axes) -> tuple[float, ...]:
    """Return the multiples of each power of ten that get a tick: fewer, the more decades there are."""
    low, high = axes.dataLim.intervaly
    return (1.0, 2.0, 5.0) if high < 30 * low else (1.0, 3.0) if high < 1000 * low else (1.0,)


def _reserve_space_above(axes: Axes, *, share: float) -> None:
    """Leave a share of the logarithmic axis free above the data, for the legend."""
    low, high = np.log10(axes.dataLim.intervaly)
    height = max(high - low, 0.3)
    axes.set_ylim(10 ** (low - 0.06 * height), 10 ** (high + height * (share / (1 - share) + 0.06)))


def _format_voxel_axis(axes: Axes, costs: Sequence[ModelCost]) -> None:
    sizes = {cost.voxels: cost.shape for cost in sorted(costs, key=lambda cost: cost.voxels)}
    axes.set_xscale("log")
    chosen = _spread_ticks(list(sizes))
    axes.set_xticks(chosen, [_format_size(sizes[voxels]) for voxels in chosen])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Volume, voxels")
    axes.grid(visible=True)


def _format_size(shape: tuple[int, ...]) -> str:
    """Return a volume's sides as text; those of a cube as a power."""
    sides = shape[:3]
    return (
        f"{sides[0]}\N{SUPERSCRIPT THREE}"
        if len(set(sides)) == 1
        else "\N{MULTIPLICATION SIGN}".join(map(str, sides))
    )


def _spread_ticks(voxels: list[int], most: int = 4) -> list[int]:
    """Return at most `most` of the sizes, both ends included, so that their labels do not overlap."""
    picked = np.linspace(0, len(voxels) - 1, min(most, len(voxels)))
    return [voxels[round(float(place))] for place in picked]
