"""Draw the figures of the study of the sample size: power and width of the interval over the subjects."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from voxlift.app.evaluation.sample_size import DifferenceVariance
from voxlift.app.evaluation.scores import Floats
from voxlift.app.report.pages import MUTED, figure_style, legend_label, new_axes, series_style
from voxlift.app.studies.sample_size.plan import POWERS, PairPlan, find_need, find_width

POINTS = 120  # of each line
MOST_DRAWN = 1_000_000


def draw_power(plans: Sequence[PairPlan]) -> Figure:
    """Draw the power over the subjects of each class, with bands, and lines at 80 and 90 %."""
    with figure_style():
        figure, axes = new_axes(width=5.6, height=3.6)
        for power in POWERS:
            axes.axhline(power, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        _draw_lines(axes, plans, lambda one, n: one.power(n, plans[0].margin, alpha=plans[0].alpha))
        axes.set_ylim(0, 1.02)
        axes.set_ylabel(f"Power for a difference of {plans[0].margin:g}")
        return figure


def draw_width(plans: Sequence[PairPlan]) -> Figure:
    """Draw the expected width of the 95 % interval over the subjects of each class, with bands."""
    with figure_style():
        figure, axes = new_axes(width=5.6, height=3.6)
        axes.axhline(2 * plans[0].margin, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        _draw_lines(axes, plans, find_width)
        axes.set_ylim(0, None)
        axes.set_ylabel("Width of the 95 % interval of the difference")
        return figure


def subject_grid(plans: Sequence[PairPlan]) -> Floats:
    """Return the numbers of subjects of each class that the figures show, from few to more than needed."""
    needs = [find_need(plan, POWERS[-1]) for plan in plans]
    most = max([need.high or need.per_class or 0 for need in needs] + [200])
    present = [min(plan.present) for plan in plans if plan.present]
    return np.geomspace(max(5, min([*present, 20]) / 2), min(2 * most, MOST_DRAWN), POINTS)


def _draw_lines(
    axes: Axes, plans: Sequence[PairPlan], value: Callable[[DifferenceVariance, float], float]
) -> None:
    grid = subject_grid(plans)
    for index, plan in enumerate(plans):
        style = series_style(index)
        axes.plot(grid, [value(plan.variance, n) for n in grid], label=legend_label(plan.name), **style)
        if ends := plan.ends():
            low, high = ([value(end, n) for n in grid] for end in ends)
            axes.fill_between(grid, low, high, color=style["color"], alpha=0.15, linewidth=0)
    if plans[0].present:
        axes.axvline(min(plans[0].present), color=MUTED, linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(grid[0], grid[-1])
    axes.set_xlabel("Test subjects of each class")
    axes.grid(visible=True)
    axes.legend(loc="best")
