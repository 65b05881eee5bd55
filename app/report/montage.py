"""One picture per case: its planes side by side, with a map over them where there is one."""

import base64
import io

import numpy as np
from matplotlib import colormaps
from matplotlib.image import imsave
from numpy.typing import NDArray

from voxlift.app.report.summary import Case

SMALLEST_HEIGHT = 192  # pixels: a 32-voxel volume is enlarged, so that print does not blur it
GAP = 2


def case_picture(case: Case) -> str:
    """A PNG of the case's planes, from left to right on black, as a data address."""
    tiles = [_grey(plane) for plane in case.planes]
    if case.maps:
        tiles = [_over(tile, heat) for tile, heat in zip(tiles, case.maps, strict=True)]
    height = max(tile.shape[0] for tile in tiles)
    strip = np.concatenate([_centred(tile, height) for tile in tiles], axis=1)[:, GAP:]
    enlarge = max(1, -(-SMALLEST_HEIGHT // height))
    stream = io.BytesIO()
    imsave(stream, np.kron(strip, np.ones((enlarge, enlarge, 1))).clip(0, 1), format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _grey(plane: NDArray[np.floating]) -> NDArray[np.float64]:
    """A plane [H, W] as grey colours [H, W, 3] in 0..1, cut at its 1st and 99th percentile."""
    low, high = np.percentile(plane, [1, 99])
    grey = np.clip((plane - low) / max(float(high - low), 1e-9), 0, 1).astype(np.float64)
    return np.repeat(grey[..., None], 3, axis=-1)


def _over(tile: NDArray[np.float64], heat: NDArray[np.floating]) -> NDArray[np.float64]:
    """A map [H, W] in 0..1 laid over a tile, clear where it is 0."""
    bounded = np.clip(heat, 0, 1).astype(np.float64)
    strength = 0.55 * bounded[..., None]
    colours = np.asarray(colormaps["inferno"](bounded), dtype=np.float64)[..., :3]
    mixed: NDArray[np.float64] = (1 - strength) * tile + strength * colours
    return mixed


def _centred(tile: NDArray[np.float64], height: int) -> NDArray[np.float64]:
    above = (height - tile.shape[0]) // 2
    padding = ((above, height - tile.shape[0] - above), (GAP, 0), (0, 0))
    return np.pad(tile, padding)
