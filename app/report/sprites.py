"""Bring volumes to the form in which a browser scrolls them: isotropic, 8 bit, all slices in one picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, label, zoom

from voxlift.data_pipelines.preprocess.foreground import otsu_threshold
from voxlift.data_pipelines.volume import Affine

MAX_SIDE = 96  # voxels
MAX_BYTES = 1_500_000  # of one case on a page, with all its maps
RANGE = (0.1, 99.9)  # percentiles that become 0 and 255
WINDOW = (1.0, 99.0)  # percentiles of the window at first
SURFACE = 0.2  # of the faces of a volume, from which on a part counts as background
OWN_SURFACE = 0.4  # of the voxels of a part, from which on it lies on the faces
MAP_LEVELS = 64  # more cannot be told apart in an overlay, and need twice the space

Bytes = NDArray[np.uint8]
Voxel = tuple[int, int, int]  # (depth, height, width)


@dataclass(frozen=True, eq=False)
class Sprite:
    """A volume with cubic voxels, at most 96 along a side, and what lies over it.

    Attributes:
        image: [D, H, W] levels: `low` is 0, `high` 255.
        low: Value of level 0, in the unit of the prepared voxels.
        high: Value of level 255.
        window: Values that are black and white at first.
        affine: 4x4, (width, height, depth) index to mm.
        has_world: Whether these are the image's own mm, RAS+; else mm from the first voxel.
        has_units: Whether the values are in the image's own unit, by the window of the preprocessing.
        has_sides: Whether width grows to the patient's right, height to the front, depth to the head.
        overlays: Name to levels [D, H, W] of a map from 0 to its maximum at 255; masks are 0 and 255.
        masks: Names of the overlays that are masks.
    """

    image: Bytes
    low: float
    high: float
    window: tuple[float, float]
    affine: Affine
    has_world: bool = False
    has_units: bool = False
    has_sides: bool = False
    overlays: Mapping[str, Bytes] = field(default_factory=dict)
    masks: Sequence[str] = ()

    @cached_property
    def objects(self) -> NDArray[np.int64]:
        """The objects of the image, see `find_objects`."""
        return find_objects(self.image)


def build_sprite(
    voxels: NDArray[np.floating],
    affine: Affine | None = None,
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    maps: Mapping[str, NDArray[np.floating]] | None = None,
    masks: Mapping[str, NDArray[np.floating]] | None = None,
    has_sides: bool = False,
    units: tuple[float, float] | None = None,
) -> Sprite:
    """Return a volume on a grid of cubic voxels.

    Args:
        voxels: [D, H, W].
        affine: 4x4, (width, height, depth) index to world mm; None: not known.
        spacing: mm (depth, height, width), used where there is no affine.
        maps: Name to map [D, H, W], 0 or more.
        masks: Name to mask [D, H, W], 0 or 1.
        has_sides: See `Sprite`.
        units: Values that the voxels 0 and 1 stand for, as the bounds of a window in HU; None: themselves.
    """
    grid = np.diag([*reversed(spacing), 1.0]) if affine is None else np.asarray(affine, np.float64)
    mm = np.linalg.norm(grid[:3, :3], axis=0)[::-1]
    shape = cubic_shape(voxels.shape, mm)
    image = resize(np.nan_to_num(voxels), shape)
    low, high = _widened(np.percentile(image, RANGE))
    scaled = np.clip((image - low) / (high - low), 0, 1)
    seen = np.percentile(image, WINDOW)
    overlays = {name: _map_levels(resize(heat, shape)) for name, heat in (maps or {}).items()}
    overlays |= {name: _mask_levels(resize(mask, shape)) for name, mask in (masks or {}).items()}
    zero, one = units or (0.0, 1.0)
    low, high, black, white = (zero + float(value) * (one - zero) for value in (low, high, *_widened(seen)))
    return Sprite(
        image=np.rint(scaled * 255).astype(np.uint8),
        low=low,
        high=high,
        window=(black, white),
        affine=resized_affine(grid, voxels.shape, shape),
        has_world=affine is not None,
        has_units=units is not None,
        has_sides=has_sides,
        overlays=overlays,
        masks=tuple(masks or {}),
    )


def cubic_shape(shape: Sequence[int], spacing: Sequence[float], *, most: int = MAX_SIDE) -> Voxel:
    """Return the sides of a grid of cubic voxels over the same field of view, none above `most`.

    The voxels have the finest spacing of the volume if that fits, else a coarser one.

    Args:
        shape: Voxels (depth, height, width).
        spacing: mm (depth, height, width).
        most: The largest side.

    >>> cubic_shape((20, 100, 80), (5.0, 1.0, 1.0))
    (96, 96, 77)
    """
    field_mm = np.asarray(shape, np.float64) * np.asarray(spacing, np.float64)
    side = max(float(min(spacing)), float(field_mm.max()) / most)
    depth, height, width = (int(n) for n in np.clip(np.rint(field_mm / side), 1, most))
    return depth, height, width


def resize(volume: NDArray[np.floating], shape: Voxel) -> NDArray[np.float32]:
    """Return a volume [D, H, W] on another grid over the same field, blurred first where it gets coarser."""
    source = np.asarray(volume, np.float32)
    if source.shape == shape:
        return source
    factors = [old / new for old, new in zip(source.shape, shape, strict=True)]
    blur = [max(0.0, (factor - 1) / 2) for factor in factors]
    smooth = gaussian_filter(source, blur, mode="nearest") if max(blur) > 0 else source
    scales = [new / old for old, new in zip(source.shape, shape, strict=True)]
    return np.asarray(zoom(smooth, scales, order=1, mode="nearest", grid_mode=True), np.float32)


def resized_affine(affine: Affine, shape: Sequence[int], new: Voxel) -> Affine:
    """Return the affine of a grid with other sides over the same field of view.

    Args:
        affine: 4x4, (width, height, depth) index to mm.
        shape: Voxels (depth, height, width) of its grid.
        new: Those of the new grid.
    """
    step = np.array([old / side for old, side in zip(shape, new, strict=True)])[::-1]
    to_old = np.eye(4)
    to_old[:3, :3], to_old[:3, 3] = np.diag(step), (step - 1) / 2
    return np.asarray(affine @ to_old, np.float64)


def find_object(sprite: Sprite) -> Voxel:
    """Return the voxel that shows most: a mask's middle, the maximum of maps on the object, or its middle.

    The maximum of a coarse map can lie beside the object. Several maps count by their sum, so that the planes
    of a volume are the same for all models.
    """
    weights = [sprite.overlays[name].astype(np.float64) for name in sprite.masks]
    maps = [levels for name, levels in sprite.overlays.items() if name not in sprite.masks]
    if weights and any(one.any() for one in weights):
        return _middle(sum(weights, np.zeros(sprite.image.shape)))
    parts = sprite.objects
    if any(one.any() for one in maps):
        total = np.sum([one.astype(np.float64) for one in maps], axis=0)
        on_object = np.where(parts > 0, total, 0)
        total = on_object if on_object.any() else total
        depth, height, width = np.unravel_index(int(total.argmax()), total.shape)
        return int(depth), int(height), int(width)
    largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
    return _middle((parts == largest).astype(np.float64))


def find_objects(image: Bytes) -> NDArray[np.int64]:
    """Return a number for each connected part of a volume that is no background, and 0 for the background.

    Bright and dark parts (by Otsu's threshold) that make up much of the surface of the volume, or lie largely
    on it, are background: air around a head, or the chest around a nodule. Where no other part is left, all
    voxels are one object. Every plane through the middle of a connected part passes through it.

    Args:
        image: Levels [D, H, W].
    """
    smooth = gaussian_filter(image.astype(np.float64), 1, mode="nearest")
    if smooth.min() == smooth.max():
        return np.ones(image.shape, np.int64)
    is_bright, found = smooth > otsu_threshold(smooth), np.zeros(image.shape, np.int64)
    for side in (is_bright, ~is_bright):
        parts, _ = label(side)
        surface = np.concatenate([np.take(parts, (0, -1), axis).ravel() for axis in range(3)])
        on_surface = np.bincount(surface, minlength=parts.max() + 1)
        own = OWN_SURFACE * np.bincount(parts.ravel())
        is_inside = on_surface < np.minimum(SURFACE * surface.size, own)
        is_kept = is_inside[parts] & (parts > 0)
        found[is_kept] = parts[is_kept] + found.max()
    return found if found.any() else np.ones(image.shape, np.int64)


def encode_sprite(sprite: Sprite, *, limit: int = MAX_BYTES) -> dict[str, Any]:
    """Return what the viewer of a page needs, as values of JSON; on a coarser grid if it is above the limit.

    Args:
        sprite: The volume.
        limit: Bytes of the pictures, as text in the page.
    """
    shown = sprite
    pictures = _encode_pictures(shown)
    while sum(map(len, pictures)) > limit and min(shown.image.shape) > 1:
        shown = _coarser(shown)
        pictures = _encode_pictures(shown)
    depth, height, width = shown.image.shape
    return {
        "size": [width, height, depth],
        "columns": _columns(width),
        "image": pictures[0],
        "low": sprite.low,
        "high": sprite.high,
        "window": list(sprite.window),
        "affine": [list(row) for row in shown.affine],
        "world": sprite.has_world,
        "sides": sprite.has_sides,
        "start": list(find_object(shown)[::-1]),
        "overlays": [
            {"name": name, "mask": name in sprite.masks, "image": picture}
            for name, picture in zip(shown.overlays, pictures[1:], strict=True)
        ],
    }


def tile_slices(levels: Bytes) -> Bytes:
    """Return the sagittal slices of a volume [D, H, W] side by side in rows, as brainsprite reads them.

    Each tile has the head on top and the front on the right; tiles run from the first voxel of width on.
    """
    depth, height, width = levels.shape
    columns = _columns(width)
    rows = -(-width // columns)
    tiles = np.zeros((rows, columns, depth, height), np.uint8)
    tiles.reshape(rows * columns, depth, height)[:width] = levels[::-1].transpose(2, 0, 1)
    return tiles.transpose(0, 2, 1, 3).reshape(rows * depth, columns * height)


def png_address(picture: NDArray[np.uint8]) -> str:
    """Return a grey [H, W] or coloured [H, W, RGB] picture as the data address of a PNG."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", compress_level=5)  # 9 saves 1 to 3 % in eight times the time
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _encode_pictures(sprite: Sprite) -> list[str]:
    return [png_address(tile_slices(levels)) for levels in (sprite.image, *sprite.overlays.values())]


def _coarser(sprite: Sprite) -> Sprite:
    sides = sprite.image.shape
    depth, height, width = (max(1, int(side * 0.85)) for side in sides)
    shape = (depth, height, width)

    def smaller(levels: Bytes) -> Bytes:
        return np.rint(resize(levels.astype(np.float32), shape)).clip(0, 255).astype(np.uint8)

    overlays = {
        name: np.where(smaller(one) > 127, 255, 0).astype(np.uint8) if name in sprite.masks else smaller(one)
        for name, one in sprite.overlays.items()
    }
    return replace(
        sprite,
        image=smaller(sprite.image),
        overlays=overlays,
        affine=resized_affine(sprite.affine, sides, shape),
    )


def _columns(width: int) -> int:
    return int(np.ceil(np.sqrt(width)))


def _map_levels(heat: NDArray[np.float32]) -> Bytes:
    top = float(heat.max())
    share = np.clip(heat / top, 0, 1) if top > 0 else np.zeros_like(heat)
    step = MAP_LEVELS - 1
    return np.rint(np.rint(share * step) * (255 / step)).astype(np.uint8)


def _mask_levels(mask: NDArray[np.float32]) -> Bytes:
    return np.where(mask > 0.5, 255, 0).astype(np.uint8)


def _middle(weights: NDArray[np.float64]) -> Voxel:
    """Return the voxel at the centre of mass; the middle of the grid where all weights are 0."""
    total = float(weights.sum())
    found = []
    for axis, side in enumerate(weights.shape):
        along = weights.sum(axis=tuple(other for other in range(3) if other != axis))
        place = float(along @ np.arange(side)) / total if total > 0 else side // 2
        found.append(round(place))
    return found[0], found[1], found[2]


def _widened(bounds: NDArray[np.floating]) -> tuple[float, float]:
    low, high = float(bounds[0]), float(bounds[1])
    return (low, high) if high > low else (low, low + 1.0)
