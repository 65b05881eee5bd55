"""What the figures of several studies do to their axes."""

from matplotlib.axes import Axes


def from_zero(axes: Axes, *, room: float = 1.08) -> None:
    """Let the vertical axis begin at 0 and end a little above what is drawn."""
    axes.set_ylim(0, room * axes.dataLim.ymax)
