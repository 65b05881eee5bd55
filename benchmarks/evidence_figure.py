"""Draw the test scores of several comparisons with their 95 % intervals, one panel each.

    python benchmarks/evidence_figure.py --output docs/evidence.png \
        --panel runs/adrenal auc "AdrenalMNIST3D" --panel runs/gait accuracy "Gait, 71 walkers"

Each panel takes the folder of a finished `voxlift-compare`, a key of its metrics, and a heading.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voxlift.app.report.figures import draw_forest
from voxlift.app.report.pages import INK, apply_print_colours, assign_colours, figure_style

WIDTH, ROW, MARGIN = 7.2, 0.26, 0.75  # inches: of the figure, of a model, of heading and axis of a panel


def main() -> int:
    """Draw the figure, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--panel", nargs=3, action="append", required=True, metavar=("FOLDER", "METRIC", "TITLE")
    )
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    panels = [(read_tests(Path(folder)), metric, title) for folder, metric, title in options.panel]
    with figure_style():
        figure = draw(panels)
        figure.draw_without_rendering()  # ticks and their labels exist only after a drawing
        apply_print_colours(figure)
        figure.savefig(options.output, dpi=150, facecolor="white")
    print(f"Figure in {options.output}")
    return 0


def read_tests(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the test metrics of each model of a comparison."""
    saved = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    return {name: model["test"] for name, model in saved["models"].items()}


def draw(panels: list[tuple[dict[str, dict[str, Any]], str, str]]) -> Figure:
    """Return the figure of (test metrics by model, metric, heading), best model first in each panel."""
    heights = [ROW * len(models) + MARGIN for models, _, _ in panels]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), 1, gridspec_kw={"height_ratios": heights}, squeeze=False)
    for axes, (models, metric, title) in zip(grid[:, 0], panels, strict=True):
        draw_panel(axes, models, metric, title)
    return figure


def draw_panel(axes: Axes, models: dict[str, dict[str, Any]], metric: str, title: str) -> None:
    """Draw a point with its interval and value for each model, the best one first."""
    best_first = dict(sorted(models.items(), key=lambda item: -item[1][metric]))
    draw_forest(axes, best_first, metric, colours=assign_colours(models))
    for row, block in enumerate(best_first.values()):
        text = f"{block[metric]:.3f}"
        axes.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), va="center", color=INK)
    axes.set_xlabel(f"{axes.get_xlabel()} on test subjects, 95 % interval")
    axes.set_title(title, loc="left", color=INK)


if __name__ == "__main__":
    sys.exit(main())
