"""A volume to look at in a notebook: to turn over where there is a viewer, as three planes everywhere.

The viewer is ipyniivue (`pip install 'voxlift[viewer]'`). A notebook's cell holds both, so that a page that
cannot run the viewer, such as a notebook on a web site, shows the planes.
"""

from __future__ import annotations

import base64
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from voxlift.app.inference.overlay import draw_planes
from voxlift.data_pipelines.geometry import from_tensor_axes, is_same_grid, spacing_of, to_tensor_axes
from voxlift.data_pipelines.preprocess.prepare import prepare_volume
from voxlift.data_pipelines.preprocess.settings import preset
from voxlift.data_pipelines.volume import Volume, VolumeError
from voxlift.data_pipelines.writers import volume_bytes

VIEWER = "ipyniivue"
HEIGHT = 360  # pixels of the interactive viewer
DPI = 72
CROSSHAIR = 180  # lines of a volume's longest side that the cross is as thin as

Image = str | Path | NDArray[Any]


@dataclass(frozen=True, eq=False)
class VolumeView:
    """A volume on display; a notebook shows it as the last value of a cell.

    Attributes:
        volume: voxels [R, A, S], one channel.
        heat: a map on the same grid, 0 and below clear; or None.
        title: one line above.
    """

    volume: Volume
    heat: Volume | None = None
    title: str = ""

    def figure(self) -> Figure:
        """Three planes in true proportions: through the map's maximum, or the middle."""
        voxels = _to_tensor(self.volume)
        heat = None if self.heat is None else _to_unit(_to_tensor(self.heat))
        at = tuple(side // 2 for side in voxels.shape)
        if heat is not None and heat.any():
            at = tuple(map(int, np.unravel_index(int(np.argmax(heat)), heat.shape)))
        spacing = spacing_of(self.volume.affine)
        return draw_planes(voxels, heat, at=(at[0], at[1], at[2]), spacing=spacing, title=self.title)

    def widget(self) -> Any:  # noqa: ANN401 - ipyniivue ships no types
        """The interactive viewer, planes and a rendering to turn; None where it is not installed."""
        if importlib.util.find_spec(VIEWER) is None:
            return None
        from ipyniivue import NiiVue, ShowRender

        viewer = NiiVue(
            height=HEIGHT,
            multiplanar_show_render=ShowRender.ALWAYS,
            crosshair_width=max(self.volume.voxels.shape) / CROSSHAIR,  # voxels
        )
        shown: list[dict[str, Any]] = [
            {"data": volume_bytes(self.volume), "name": "volume.nii", "colormap": "gray"}
        ]
        if self.heat is not None:
            over = {"colormap": "inferno", "opacity": 0.6}
            shown.append({"data": volume_bytes(self.heat), "name": "map.nii", **over})
        viewer.load_volumes(shown)
        return viewer

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:  # noqa: ANN401 - IPython's protocol
        """Both forms; the notebook takes the richest that it can show."""
        stream = io.BytesIO()
        self.figure().savefig(stream, dpi=DPI, format="png", facecolor="black")
        bundle: dict[str, Any] = {
            "text/plain": repr(self),
            "image/png": base64.b64encode(stream.getvalue()).decode("ascii"),
        }
        widget = self.widget()
        if widget is None:
            return bundle
        live = widget._repr_mimebundle_()
        return {**(live[0] if isinstance(live, tuple) else live), **bundle}

    def __repr__(self) -> str:
        depth, height, width = _to_tensor(self.volume).shape
        return f"{self.title or 'volume'}: {depth} x {height} x {width} voxels (depth, height, width)"


def show_volume(
    image: Image,
    *,
    heat: Image | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    title: str | None = None,
) -> VolumeView:
    """A volume for a notebook's cell, with a map over it where one is given.

    Args:
        image: a file that `load_volume` reads, of which the first channel is shown; or an array [D, H, W].
        heat: a map on the image's own grid, as `voxlift-predict explain=true` writes them; file or array.
        spacing: mm (depth, height, width) of arrays; a file knows its own.
        title: one line above; by default the file's name.

    Raises:
        VolumeError: a file cannot be used, an array has another rank, or the map lies on another grid.
    """
    volume = _open(image, spacing)
    over = None if heat is None else _open(heat, spacing)
    if over is not None and not is_same_grid(
        volume.voxels.shape, volume.affine, over.voxels.shape, over.affine
    ):
        raise VolumeError(
            f"{over.source}: expected a map on the grid of {volume.source}, {volume.voxels.shape} voxels; it "
            f"has {over.voxels.shape}, or lies elsewhere. voxlift-predict writes maps on their image's grid."
        )
    named = "" if isinstance(image, np.ndarray) else Path(image).name
    return VolumeView(volume, over, named if title is None else title)


def _open(image: Image, spacing: Sequence[float]) -> Volume:
    if not isinstance(image, np.ndarray):
        found = prepare_volume(image, preset("none"))
        return Volume(found.voxels[..., 0], found.affine, found.source)
    if image.ndim != 3:
        raise VolumeError(f"expected an array [depth, height, width]; received one of shape {image.shape}.")
    affine = np.diag([*reversed(spacing), 1.0])
    return Volume(from_tensor_axes(image), affine, Path("array"))


def _to_tensor(volume: Volume) -> NDArray[np.float32]:
    return np.asarray(to_tensor_axes(volume.voxels), dtype=np.float32)


def _to_unit(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map in 0..1, by its own maximum."""
    top = float(heat.max())
    return np.clip(heat / top, 0, 1) if top > 0 else np.zeros_like(heat)
