"""Names beside the points of a figure, none upon another, upon a point, or out of the axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from voxlift.app.report.style import INK, MUTED

Point = tuple[float, float, str]  # x and y in the units of the data, and the name
Pixels = NDArray[np.float64]  # x and y
DISTANCES = (6, 12, 20, 30, 42, 56, 72)  # from the point, in points of the page
SIDES = ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
LINE: dict[str, Any] = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3}
LEADER = 10  # a name further away than that gets a line to its point


def label_points(
    axes: Axes, points: Sequence[Point], *, others: Sequence[tuple[float, float]] = (), size: float = 7
) -> list[Annotation]:
    """Write every point's name where it covers nothing; call it when the limits of the axes are final.

    Where there is no free place at all, the name stands where it covers least.

    Args:
        axes: Of a figure whose layout may still be open.
        points: What gets a name, the most important first.
        others: Points without a name (x, y), to be left uncovered too.
        size: Of the letters.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        return []
    figure.draw_without_rendering()  # the layout's, so that pixels are known
    scale = figure.dpi / 72
    places = axes.transData.transform([(x, y) for x, y, _ in points] + list(others))
    taken = [Bbox.from_extents(*(place - 4 * scale), *(place + 4 * scale)) for place in places]
    labels = []
    for (x, y, name), place in zip(points, places, strict=False):
        label = axes.annotate(
            name, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=size, color=INK, va="center",
            ha="center", arrowprops=dict(LINE),
        )  # fmt: skip
        label.set_in_layout(False)
        extent = label.get_window_extent()
        shift, box = _best_place(place, (extent.width, extent.height), taken, axes.bbox, scale=scale)
        label.set_position((shift[0] / scale, shift[1] / scale))
        if label.arrow_patch is not None and np.hypot(*_gap(box, place)) < LEADER * scale:
            label.arrow_patch.set_visible(False)
        taken.append(box)
        labels.append(label)
    return labels


def _best_place(
    place: Pixels, size: tuple[float, float], taken: Sequence[Bbox], frame: Bbox, *, scale: float
) -> tuple[Pixels, Bbox]:
    """The shift of a name's middle from its point, in pixels, and the box that it fills there."""
    best: tuple[float, Pixels, Bbox] | None = None
    for shift in _shifts(size, scale):
        middle, half = place + shift, np.asarray(size) / 2
        box = Bbox.from_extents(*(middle - half), *(middle + half))
        covered = sum(_shared_area(box, one) for one in taken) + _area_outside(box, frame)
        if covered == 0:
            return shift, box
        if best is None or covered < best[0]:
            best = covered, shift, box
    if best is None:
        raise ValueError("expected at least one place to try")
    return best[1], best[2]


def _shifts(size: tuple[float, float], scale: float) -> Iterator[Pixels]:
    """Places to try, the nearest first: right, above, left, below, then the corners."""
    half = np.asarray(size) / 2
    for distance in DISTANCES:
        for side in SIDES:
            reach = distance * scale / np.hypot(*side)
            yield np.asarray(side) * (half + reach)


def _shared_area(one: Bbox, other: Bbox) -> float:
    shared = Bbox.intersection(one, other)
    return float(shared.width * shared.height) if shared is not None else 0.0


def _area_outside(box: Bbox, frame: Bbox) -> float:
    return float(box.width * box.height) - _shared_area(box, frame)


def _gap(box: Bbox, place: Pixels) -> Pixels:
    """From a point to the nearest edge of a box, in pixels."""
    return np.maximum(0, np.maximum(box.min - place, place - box.max))
