"""The look of every figure: one style, and colours that the page decides: light, dark or print.

Matplotlib draws in stand-in colours that occur nowhere else; the SVG then names the page's variables in
their place.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

INK, MUTED, RULE, PAPER = "#010203", "#010204", "#010205", "#010206"
SERIES = tuple(f"#0102{number:02x}" for number in range(16, 24))
DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (5, 1.5, 1.2, 1.5)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2, 3)),
    (0, (10, 2, 2, 2)),
)
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p")  # of markers: they tell series apart in grey
VARIABLES: Mapping[str, str] = MappingProxyType(
    {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"}
    | {colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)}
)
SETTINGS: Any = MappingProxyType(  # Any: the stub of rc_context wants literal keys
    {
        "svg.fonttype": "none",  # real text: searchable, in the page's own face
        "svg.hashsalt": "voxlift",  # the same figure gives the same bytes
        "font.size": 8.5,
        "axes.titlesize": 9.5,
        "legend.fontsize": 8,
        "axes.labelsize": 8.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.titlecolor": INK,
        "axes.titlelocation": "left",
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "grid.color": RULE,
        "grid.linewidth": 0.5,
        "lines.linewidth": 1.5,
        "legend.frameon": False,
        "legend.labelcolor": INK,
        "legend.handlelength": 2.4,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
    }
)


def new_axes(*, width: float = 4.6, height: float = 3.9) -> tuple[Figure, Axes]:
    """A figure in inches with one set of axes; call inside `figure_style`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def figure_style() -> AbstractContextManager[None]:
    """A context with the settings of every figure; the caller's own are restored after it."""
    return rc_context(dict(SETTINGS))


def series_style(index: int) -> dict[str, Any]:
    """Colour and dash of the series of that index; the dash tells lines apart without colour."""
    return {"color": SERIES[index % len(SERIES)], "linestyle": DASHES[index % len(DASHES)]}


def series_shape(index: int) -> str:
    """The marker of the series of that index."""
    return SHAPES[index % len(SHAPES)]


def svg_markup(figure: Figure, *, name: str, title: str) -> Markup:
    """The figure as an SVG element to stand in a page.

    Args:
        figure: Drawn with this module's colours.
        name: Unique on the page; put before every id, since all figures of a page share one name space.
        title: What a screen reader says.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r"(font: [\d.]+px) '[^;]*?(;|\")", r"\1 var(--sans)\2", body)
    for stand_in, variable in VARIABLES.items():
        body = body.replace(stand_in, f"var({variable})")
    attributes = Markup('<svg role="img" aria-label="{}" ').format(title)
    start = re.sub(r'\s(width|height)="[\d.]+pt"', "", body[: body.index(">")].removeprefix("<svg "))
    return Markup(attributes + Markup(start) + Markup(body[body.index(">") :]))  # noqa: S704 - drawn by us, no user markup: matplotlib escapes text


def anchor(text: str) -> str:
    """A name that may stand in an id."""
    return re.sub(r"[^a-zA-Z0-9]+", "-", str(escape(text))).strip("-").lower()


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
