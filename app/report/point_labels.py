"""Place the names of points in a figure where they cover nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from voxlift.app.report.pages import INK, MUTED

Point: TypeAlias = tuple[float, float, str]  # x and y in data units, and the name
Pixels: TypeAlias = NDArray[np.float64]  # x and y

DISTANCES = (6, 12, 20, 30, 42, 56, 72)  # from a point to its label, in 1/72 inch
DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
LEADER_DISTANCE = 10  # 1/72 inch; a label further away than that gets a line to its point
LEADER: dict[str, Any] = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3}
POINT_RADIUS = 4  # 1/72 inch around a point that no label may cover


def label_points(
    axes: Axes, points: Sequence[Point], *, others: Sequence[tuple[float, float]] = (), size: float = 7
) -> list[Annotation]:
    """Write the name of every point where it covers nothing, or else where it covers least.

    Call it when the limits of the axes are final.

    Args:
        axes: Axes of a figure whose layout may still be open.
        points: Points with a name, the most important first.
        others: Points without a name (x, y), which the labels do not cover either.
        size: Font size.

    Returns:
        The labels, one per point.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        return []
    figure.draw_without_rendering()  # runs the layout, so that pixel positions are known
    scale = figure.dpi / 72
    places = axes.transData.transform([(x, y) for x, y, _ in points] + list(others))
    radius = POINT_RADIUS * scale
    taken = [Bbox.from_extents(*(place - radius), *(place + radius)) for place in places]
    return [
        _place_label(_draw_label(axes, point, size), place, taken, frame=axes.bbox, scale=scale)
        for point, place in zip(points, places, strict=False)
    ]


def _draw_label(axes: Axes, point: Point, size: float) -> Annotation:
    x, y, name = point
    label = axes.annotate(
        name, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=size, color=INK, va="center",
        ha="center", arrowprops=dict(LEADER),
    )  # fmt: skip
    label.set_in_layout(False)
    return label


def _place_label(
    label: Annotation, place: Pixels, taken: list[Bbox], *, frame: Bbox, scale: float
) -> Annotation:
    """Move a label to the best free place near its point, and add its box to `taken`."""
    extent = label.get_window_extent()
    shift, box = _find_best_place(place, (extent.width, extent.height), taken, frame, scale=scale)
    label.set_position((shift[0] / scale, shift[1] / scale))
    gap = np.maximum(0, np.maximum(box.min - place, place - box.max))  # from the point to the box
    if label.arrow_patch is not None and np.hypot(*gap) < LEADER_DISTANCE * scale:
        label.arrow_patch.set_visible(False)
    taken.append(box)
    return label


def _find_best_place(
    place: Pixels, size: tuple[float, float], taken: Sequence[Bbox], frame: Bbox, *, scale: float
) -> tuple[Pixels, Bbox]:
    """Return the shift of a label's centre from its point, in pixels, and the box that it then fills."""
    candidates = []
    for shift in _iterate_shifts(size, scale):
        middle, half = place + shift, np.asarray(size) / 2
        box = Bbox.from_extents(*(middle - half), *(middle + half))
        outside = float(box.width * box.height) - _overlap_area(box, frame)
        covered = sum(_overlap_area(box, one) for one in taken) + outside
        if covered == 0:
            return shift, box
        candidates.append((covered, shift, box))
    areas = [covered for covered, _, _ in candidates]
    _, shift, box = candidates[areas.index(min(areas))]
    return shift, box


def _iterate_shifts(size: tuple[float, float], scale: float) -> Iterator[Pixels]:
    """Yield the shifts to try, the nearest first: right, above, left, below, then the corners."""
    half = np.asarray(size) / 2
    for distance in DISTANCES:
        for direction in DIRECTIONS:
            length = distance * scale / np.hypot(*direction)
            yield np.asarray(direction) * (half + length)


def _overlap_area(one: Bbox, other: Bbox) -> float:
    overlap = Bbox.intersection(one, other)
    return float(overlap.width * overlap.height) if overlap is not None else 0.0
