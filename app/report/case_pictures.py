"""Draw the planes of a case with its map or mask as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from voxlift.app.report.cases import Case
from voxlift.app.report.sprites import png_address

MIN_HEIGHT = 192  # pixels: planes of few voxels are enlarged, so that printing does not blur them


GAP = 2  # pixels between planes


MAP_OPACITY = 0.6


MASK_COLOUR = (0.48, 0.90, 0.51)


def case_picture(case: Case, *, with_bare: bool = True) -> str:
    """Return a PNG of the planes of a case as a data URL: bare, and below with its map or mask.

    Args:
        case: The case.
        with_bare: Whether the bare planes are shown where there is a map or a mask.
    """
    tiles = [_to_grey(plane) for plane in case.planes]
    bare = join_planes(tiles)
    factor = max(1, -(-MIN_HEIGHT // bare.shape[0]))
    enlarge = np.ones((factor, factor, 1))
    strips = [np.kron(bare, enlarge).clip(0, 1)]
    if case.maps or case.masks:
        maps = case.maps or [np.zeros(plane.shape) for plane in case.planes]
        over = join_planes([blend_map(tile, heat) for tile, heat in zip(tiles, maps, strict=True)])
        strips += [np.zeros((GAP * factor, *strips[0].shape[1:])), np.kron(over, enlarge).clip(0, 1)]
    if case.masks:
        inside = join_planes([mask[..., None] for mask in case.masks])[..., 0]
        inside = np.kron(inside, np.ones((factor, factor))) > 0
        strips[-1][inside & ~binary_erosion(inside)] = MASK_COLOUR
    return encode_png(np.concatenate(strips if with_bare else strips[-1:]))


def map_colours() -> NDArray[np.uint8]:
    """Return the colours [256, RGBA] of a map from 0 (transparent) to its maximum."""
    share = np.linspace(0, 1, 256)
    colours = np.asarray(colormaps["inferno"](share), np.float64)
    colours[:, 3] = np.clip(2 * share, 0, 1)
    return np.asarray(np.rint(colours * 255), np.uint8)


def colour_bar() -> str:
    """Return a PNG of the colours of a map from 0 to its maximum, over black and white, as a data URL."""
    share = np.tile(np.linspace(0, 1, 256), (8, 1))
    strips = [blend_map(np.full((8, 256, 3), ground), share) for ground in (0.0, 1.0)]
    return encode_png(np.concatenate(strips))


def join_planes(planes: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return images [H, W, RGB] side by side on black, each centred vertically."""
    height = max(plane.shape[0] for plane in planes)
    padded = []
    for plane in planes:
        above = (height - plane.shape[0]) // 2
        padded.append(np.pad(plane, ((above, height - plane.shape[0] - above), (GAP, 0), (0, 0))))
    return np.concatenate(padded, axis=1)[:, GAP:]


def encode_png(image: NDArray[Any]) -> str:
    """Return an image [H, W, RGB], float in 0..1 or uint8, as the data URL of a PNG."""
    is_byte = image.dtype == np.uint8
    return png_address(image if is_byte else np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))


def _to_grey(plane: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return a plane [H, W] as grey colours [H, W, RGB] in 0..1, cut at its 1st and 99th percentile."""
    low, high = np.percentile(plane, [1, 99])
    grey = np.clip((plane - low) / max(float(high - low), 1e-9), 0, 1).astype(np.float64)
    return np.repeat(grey[..., None], 3, axis=-1)


def blend_map(tile: NDArray[np.float64], heat: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return a tile [H, W, RGB] with a map [H, W] in 0..1 over it, see `map_colours`."""
    colours = map_colours()[np.rint(np.clip(heat, 0, 1) * 255).astype(np.int64)] / 255
    opacity = MAP_OPACITY * colours[..., 3:]
    blended: NDArray[np.float64] = (1 - opacity) * tile + opacity * colours[..., :3]
    return blended
