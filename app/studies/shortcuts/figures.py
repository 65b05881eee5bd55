"""Draw the figure of the study of shortcuts: the AUC of every contestant beside the model's."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from voxlift.app.report.pages import INK, MUTED, SERIES, figure_style, new_axes
from voxlift.app.studies.shortcuts.results import CHANCE, Interval, Result


def draw_contestants(model: Interval, results: Sequence[Result]) -> Figure:
    """Draw the AUC of the model and of every scored contestant with intervals; caught ones are coloured."""
    rows = [
        ("model", model, False),
        *((one.name, one.auc, one.is_caught) for one in results if not one.reason),
    ]
    with figure_style():
        figure, axes = new_axes(width=5.6, height=0.9 + 0.3 * len(rows))
        axes.axvspan(model.low, model.high, color=MUTED, alpha=0.15, linewidth=0)
        axes.axvline(model.value, color=MUTED, linewidth=0.9)
        axes.axvline(CHANCE, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
        for row, (name, auc, is_caught) in enumerate(rows):
            colour = SERIES[1] if is_caught else SERIES[0] if name == "model" else INK
            axes.hlines(row, auc.low, auc.high, color=colour, linewidth=1.6)
            axes.plot(auc.value, row, "D" if is_caught else "o", color=colour, markersize=5)
        axes.set_yticks(range(len(rows)), [name.replace("_", " ") for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(min(0.4, *(auc.low for _, auc, _ in rows)) - 0.02, 1.02)
        axes.set_xlabel("AUC on the test subjects")
        axes.grid(visible=True, axis="x")
        axes.tick_params(axis="y", length=0)
        return figure
