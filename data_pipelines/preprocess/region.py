"""The region of interest of a record: a mask or a point, and the box around it in an image.

A mask is an image file of its own, on any grid: its voxels are placed by its affine. A point is given in mm
of the world. Both give a box of voxels of the record's first image, to crop to; a mask can be a channel of
the network's input too, or blank what is outside of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

from voxlift.data_pipelines.geometry import Grid, Triple, field_of_view, is_same_grid, spacing_of
from voxlift.data_pipelines.preprocess.resample import resample
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.readers import read_stored
from voxlift.data_pipelines.tables.regions import Point, Region, name_centre
from voxlift.data_pipelines.volume import Affine, Array, Stored, VolumeError, real_values

INSIDE = 0.5
"""A mask's voxels of this value or more are inside: it suits 0 and 1, labels 1, 2, ... and probabilities."""
EDGE = 1e-3  # voxels: headers store float32, so that edges are rounded

# [2, 3]: lower and upper edge of a box, in voxels; voxel n covers n - 0.5 to n + 0.5.
Edges = NDArray[np.float64]


class RegionError(VolumeError):
    """A mask or centre that selects nothing of its image.

    Attributes:
        kind: `mask_empty`, `mask_off_grid` or `centre_outside`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask on its own grid.

    Attributes:
        inside: Bool `[i, j, k]`.
        affine: 4x4, voxel index -> world mm, RAS+.
        source: The file.
    """

    inside: NDArray[np.bool_]
    affine: Affine
    source: Path

    @property
    def digest(self) -> str:
        """Hash of the voxels inside and of their place in the world."""
        digest = hashlib.blake2b(repr((self.inside.shape, self.affine.tolist())).encode(), digest_size=16)
        digest.update(np.packbits(self.inside).tobytes())
        return digest.hexdigest()

    @property
    def volume_ml(self) -> float:
        """Volume inside in millilitres."""
        return float(self.inside.sum() * abs(np.linalg.det(self.affine[:3, :3])) / 1000)


@dataclass(frozen=True, eq=False)
class PlacedRegion:
    """A record's region, read and placed in its first image.

    Attributes:
        edges: Of the box around it, without a margin, in voxels of the first image.
        mask: The mask, with the components that count; None for a point.
    """

    edges: Edges
    mask: Mask | None = None


def read_mask(path: Path, settings: Preprocess) -> Mask:
    """Return a record's mask with the components that count.

    Args:
        path: Its file.
        settings: The components (`mask_components`), and how the file is read.

    Raises:
        VolumeError: The file cannot be used, or nothing is inside.
    """
    stored = read_stored(path, time_axis=settings.time_axis, prefer=settings.prefer)
    with np.errstate(invalid="ignore"):
        inside: NDArray[np.bool_] = np.asarray(real_values(stored) >= INSIDE)  # NaN is outside
    if inside.ndim == 4:
        inside = np.asarray(inside.any(axis=3))
    if not inside.any():
        raise RegionError(
            "mask_empty",
            f"{path}: the mask is empty (no voxel of {INSIDE:g} or more). Correct it, or leave the row out.",
        )
    if settings.mask_components == "largest":
        inside = find_largest_component(inside)
    return Mask(inside, stored.affine, path)


def count_components(inside: NDArray[np.bool_]) -> int:
    """Return how many parts a mask has; voxels that touch at a corner are of one part."""
    return int(ndimage.label(inside, np.ones((3, 3, 3)))[1])


def find_largest_component(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the part of a mask with the most voxels, of equal ones the first; corners connect."""
    labels, count = ndimage.label(inside, np.ones((3, 3, 3)))
    if count < 2:
        return inside
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = labels == sizes.argmax()
    return largest


def place_region(
    region: Region | None, first: Stored, settings: Preprocess, mask: Mask | None = None
) -> PlacedRegion:
    """Return a record's region in its first image.

    Args:
        region: The record's.
        first: Its first image.
        settings: What the region is for.
        mask: The region's, where it has been read already.

    Raises:
        VolumeError: The record has no region, its mask cannot be used, or the region is outside the image.
    """
    if region is not None and region.mask is not None:
        mask = mask or read_mask(region.mask, settings)
        return PlacedRegion(find_mask_edges(mask, first), mask)
    if region is not None and region.centre is not None:
        return PlacedRegion(_find_point_edges(region.centre, first))
    raise VolumeError(
        f"{first.source}: this preprocessing needs a mask or a centre for each image; the record has none."
    )


def find_mask_edges(mask: Mask, first: Stored) -> Edges:
    """Return the edges of the box around the voxels of a mask that are in an image.

    Args:
        mask: On any grid.
        first: The image.

    Raises:
        VolumeError: None is.
    """
    shape = first.voxels.shape[:3]
    if is_same_grid(mask.inside.shape, mask.affine, shape, first.affine):
        sides = [np.flatnonzero(mask.inside.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        return np.array([[side[0] - 0.5 for side in sides], [side[-1] + 0.5 for side in sides]])
    to_image = np.linalg.inv(first.affine) @ mask.affine
    half = np.abs(to_image[:3, :3]).sum(axis=1) / 2  # of a voxel of the mask, along the image's axes
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for i, plane in enumerate(mask.inside):  # plane by plane: a mask of a whole body has many voxels
        index = np.column_stack((np.full(int(plane.sum()), i), np.argwhere(plane)))
        at = apply_affine(to_image, index)
        at = at[((at > -0.5) & (at < np.array(shape) - 0.5)).all(axis=1)]
        if at.size:
            low, high = np.minimum(low, at.min(axis=0)), np.maximum(high, at.max(axis=0))
    if not np.isfinite(low).all():
        raise RegionError("mask_off_grid", _off_grid_message(mask, first))
    edges: Edges = np.clip([low - half, high + half], -0.5, np.array(shape) - 0.5)
    return edges


def find_crop_box(edges: Edges, first: Stored, margin_mm: float) -> tuple[Triple, Triple]:
    """Return first voxel and the voxel after the last one of a box with its margin; it may leave the image.

    Args:
        edges: Of the box, see `PlacedRegion`.
        first: The image.
        margin_mm: At least this much is added on every side.
    """
    margin = margin_mm / np.array(spacing_of(first.affine)[::-1])
    start = np.floor(edges[0] - margin + 0.5 + EDGE).astype(int)
    stop = np.maximum(np.ceil(edges[1] + margin + 0.5 - EDGE).astype(int), start + 1)
    return (int(start[0]), int(start[1]), int(start[2])), (int(stop[0]), int(stop[1]), int(stop[2]))


def is_in_box(grid: Grid, start: Triple, stop: Triple) -> Array:
    """Return which voxels of a grid lie in a box of the stored grid, bool, broadcastable to the grid's shape.

    Args:
        grid: The output grid.
        start: First voxel of the box, (i, j, k) of the stored grid.
        stop: The voxel after the last one.
    """
    shifted = grid.to_source.copy()
    shifted[:3, 3] -= start
    return field_of_view(replace(grid, to_source=shifted), tuple(np.subtract(stop, start)))


def resample_mask(mask: Mask, grid: Grid, first: Stored) -> NDArray[np.bool_]:
    """Return which voxels of a grid are inside a mask, by nearest neighbour, bool of the grid's shape.

    Args:
        mask: On any grid.
        grid: In the index space of the first image.
        first: The image.

    Raises:
        VolumeError: None is: the mask is thinner than the distance of the grid's voxels.
    """
    if not is_same_grid(mask.inside.shape, mask.affine, first.voxels.shape, first.affine):
        grid = replace(grid, to_source=np.linalg.inv(mask.affine) @ first.affine @ grid.to_source)
    inside: NDArray[np.bool_] = resample(mask.inside.astype(np.uint8), grid, interpolation="nearest") > 0
    if not inside.any():
        raise VolumeError(
            f"{mask.source}: no voxel of the network's input is inside this mask of {mask.volume_ml:.3g} ml. "
            "Choose a finer preprocess.spacing or a larger preprocess.shape, or leave the row out."
        )
    return inside


def _find_point_edges(centre: Point, first: Stored) -> Edges:
    """Return a box without extent at a point in world mm, which must be in the image."""
    at = _index_of(centre, first)
    if _is_in_image(at, first):
        return np.array([at, at])
    x, y, z = centre
    hint = ""
    if _is_in_image(_index_of((-x, -y, z), first), first):
        hint = " With x and y negated it is inside: choose data.centre_space=LPS or RAS accordingly."
    raise RegionError(
        "centre_outside",
        f"{first.source}: the centre ({name_centre(centre)}) mm, RAS, is outside the image, which covers "
        f"{_describe_extent(first.voxels.shape, first.affine)}.{hint}",
    )


def _index_of(point: Point, first: Stored) -> NDArray[np.float64]:
    index: NDArray[np.float64] = apply_affine(np.linalg.inv(first.affine), np.array(point))
    return index


def _is_in_image(index: NDArray[np.float64], first: Stored) -> bool:
    return bool(((index > -0.5) & (index < np.array(first.voxels.shape[:3]) - 0.5)).all())


def _off_grid_message(mask: Mask, first: Stored) -> str:
    inside = apply_affine(mask.affine, np.argwhere(mask.inside))
    covered = _describe_box(inside.min(axis=0), inside.max(axis=0))
    return (
        f"{mask.source}: no voxel of the mask is in the image {first.source}. In world mm (RAS) the mask "
        f"covers {covered}, the image {_describe_extent(first.voxels.shape, first.affine)}. Save the mask "
        "with the image's affine, or leave the row out."
    )


def _describe_extent(shape: Sequence[int], affine: Affine) -> str:
    corners = apply_affine(
        affine, [np.multiply(one, np.subtract(shape[:3], 1)) for one in np.ndindex(2, 2, 2)]
    )
    return _describe_box(corners.min(axis=0), corners.max(axis=0))


def _describe_box(low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    return ", ".join(f"{axis} {a:.4g} to {b:.4g}" for axis, a, b in zip("xyz", low, high, strict=True))
