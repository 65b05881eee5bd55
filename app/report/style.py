"""The look of every figure: one style, and colours that the page decides: light, dark or print.

Matplotlib draws in stand-in colours that occur nowhere else; the SVG then names the page's variables in
their place.
"""

import io
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
