"""Show a volume in a notebook: interactively where a viewer is installed, and always as three planes.

The interactive viewer is ipyniivue (`pip install 'voxlift[viewer]'`). The output of a cell contains both
forms: where the viewer cannot run, as in a notebook on a web site, the planes are shown.
"""

from __future__ import annotations

import base64
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from voxlift.app.inference.overlay import draw_planes
from voxlift.data_pipelines.geometry import from_tensor_axes, is_same_grid, spacing_of, to_tensor_axes
from voxlift.data_pipelines.preprocess.prepare import prepare_volume
from voxlift.data_pipelines.preprocess.settings import preset
from voxlift.data_pipelines.volume import Volume, VolumeError
from voxlift.data_pipelines.writers import encode_nifti

VIEWER = "ipyniivue"
HEIGHT = 360  # pixels of the interactive viewer
DPI = 72
CROSSHAIRS_PER_SIDE = 180  # width of the crosshair: the longest side of the volume, divided by this

Image: TypeAlias = str | Path | NDArray[Any]


@dataclass(frozen=True, eq=False)
class VolumeView:
    """A volume to show; a notebook displays it as the last value of a cell.

    Attributes:
        volume: Voxels [R, A, S], one channel.
        heat: A map on the same grid, transparent at 0 and below; or None.
        title: One line above.
    """

    volume: Volume
    heat: Volume | None = None
    title: str = ""

    def figure(self) -> Figure:
        """Return three planes in true proportions, through the maximum of the map or the middle."""
        voxels = _to_tensor(self.volume)
        heat = None if self.heat is None else _to_unit(_to_tensor(self.heat))
        at = tuple(side // 2 for side in voxels.shape)
        if heat is not None and heat.any():
            at = tuple(map(int, np.unravel_index(int(np.argmax(heat)), heat.shape)))
        spacing = spacing_of(self.volume.affine)
        return draw_planes(voxels, heat, at=(at[0], at[1], at[2]), spacing=spacing, title=self.title)

    def widget(self) -> Any:  # noqa: ANN401 - ipyniivue ships no types
        """Return the interactive viewer with planes and a 3D rendering; None where it is not installed."""
        if importlib.util.find_spec(VIEWER) is None:
            return None
        from ipyniivue import NiiVue, ShowRender

        viewer = NiiVue(
            height=HEIGHT,
            multiplanar_show_render=ShowRender.ALWAYS,
            crosshair_width=max(self.volume.voxels.shape) / CROSSHAIRS_PER_SIDE,  # voxels
        )
        layers: list[dict[str, Any]] = [
            {"data": encode_nifti(self.volume), "name": "volume.nii", "colormap": "gray"}
        ]
        if self.heat is not None:
            style = {"colormap": "inferno", "opacity": 0.6}
            layers.append({"data": encode_nifti(self.heat), "name": "map.nii", **style})
        viewer.load_volumes(layers)
        return viewer

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:  # noqa: ANN401 - IPython's protocol
        """Return both forms; the notebook displays the richest one that it supports."""
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
    """Return a volume to display in a notebook, with a map over it if one is given.

    Args:
        image: A file that `load_volume` reads, whose first channel is shown; or an array [D, H, W].
        heat: A map on the grid of the image, such as `voxlift-predict explain=true` writes; file or array.
        spacing: Spacing of arrays in mm (depth, height, width); a file has its own.
        title: One line above; by default the name of the file.

    Raises:
        VolumeError: A file cannot be used, an array has another rank, or the map is on another grid.
    """
    volume = _open(image, spacing)
    over = None if heat is None else _open(heat, spacing)
    if over is not None and not is_same_grid(
        volume.voxels.shape, volume.affine, over.voxels.shape, over.affine
    ):
        raise VolumeError(
            f"{over.source}: expected a map on the grid of {volume.source}, {volume.voxels.shape} voxels; "
            f"received {over.voxels.shape} voxels or another affine. Use the map that voxlift-predict "
            "wrote for this image."
        )
    if title is None:
        title = "" if isinstance(image, np.ndarray) else Path(image).name
    return VolumeView(volume, over, title)


def _open(image: Image, spacing: Sequence[float]) -> Volume:
    if not isinstance(image, np.ndarray):
        prepared = prepare_volume(image, preset("none"))
        return Volume(prepared.voxels[..., 0], prepared.affine, prepared.source)
    if image.ndim != 3:
        raise VolumeError(f"expected an array [depth, height, width]; received one of shape {image.shape}.")
    affine = np.diag([*reversed(spacing), 1.0])
    return Volume(from_tensor_axes(image), affine, Path("array"))


def _to_tensor(volume: Volume) -> NDArray[np.float32]:
    return np.asarray(to_tensor_axes(volume.voxels), dtype=np.float32)


def _to_unit(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map scaled by its maximum and cut to 0..1."""
    top = float(heat.max())
    return np.clip(heat / top, 0, 1) if top > 0 else np.zeros_like(heat)
