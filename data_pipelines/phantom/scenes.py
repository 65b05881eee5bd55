"""Draw the phantom's volumes: tasks that a volume decides and a single slice cannot.

All scenes share a lung-like background: parenchyma near -850 HU with smooth texture, a chest wall outside
an ellipse, straight oblique distractor vessels, and white noise. Nothing in it depends on the class or on
the direction of depth.

Task `nodule`. A row of touching round beads, the *vessel*, runs straight through all slices. A bead is a
soft ball of radius R, so the row's cross-section at depth z depends only on u, the distance to the nearest
bead's centre plane, and a random phase makes u uniform on [-R, R]. In class *nodule* one whole bead is
beside the row, at another lateral position. Each slice of either class therefore has exactly one disc, with
the same size and intensity at the same depth for the same draw; its position has the same distribution too,
since the two lateral positions are drawn as an exchangeable pair. Only the relation between slices differs:
a ball alone beside a gap, or an unbroken row. The beads fade out towards their rim, so that resampling
along depth leaves no trace of the step from one to the next.

Task `chirality`. A tube winds around the depth axis as a left-handed helix of random phase, pitch, radius
and width; a right-handed volume is such a volume with its slices in reverse order, noise included. The
slices of a volume and of its mirrored counterpart are thus exactly the same set.

Tasks `pitch` and `winding`. The rise of such a helix in one turn is the number, or in three ranges the grade.
Each slice shows the same disc at an angle that says nothing about it.

Task `signs`. The beads of `nodule`, which are dense in some subjects: one finding that only a volume shows,
and one that every slice shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from voxlift.data_pipelines.phantom.tasks import Truth

Voxels = NDArray[np.float32]

_HALF_FIELD_MM = 32.0
_MASK_OPACITY = 0.1  # nearly the whole of a fading structure
_LUNG_HU = -850.0
_WALL_HU = 30.0
_CALCIFIED_HU = 350.0  # above soft tissue

WITH_BEADS = ("nodule", "signs")


@dataclass(frozen=True)
class Field:
    """A box of voxels centred on the world's origin.

    Args:
        shape: Voxels along (depth, height, width).
        spacing: mm per voxel along (depth, height, width).
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    def axes(self) -> tuple[Voxels, Voxels, Voxels]:
        """Return the voxel centres in mm, broadcastable to [D, H, W]."""
        z, y, x = (
            ((np.arange(size) - (size - 1) / 2) * step).astype(np.float32)
            for size, step in zip(self.shape, self.spacing, strict=True)
        )
        return z[:, None, None], y[None, :, None], x[None, None, :]


def draw_scene(field: Field, rng: np.random.Generator, *, task: str, truth: Truth) -> Voxels:
    """Return one volume.

    Args:
        field: Shape and spacing.
        rng: All labels draw the same numbers, so that equal seeds give matched volumes.
        task: One of `PHANTOM_TASKS`.
        truth: What is drawn.

    Returns:
        HU, [D, H, W] float32, about -1100 to 500.
    """
    if task in WITH_BEADS:
        target = draw_beads(field, rng, is_broken=truth.label == 1)
    else:
        target = draw_helix(field, rng, pitch_mm=truth.pitch_mm)
    voxels = _embed(field, rng, target, is_calcified=truth.is_calcified)
    # The right-handed volume: the same slices in reverse order.
    return voxels[::-1].copy() if task == "chirality" and truth.label == 1 else voxels


def draw_mask(field: Field, rng: np.random.Generator, *, task: str, truth: Truth) -> NDArray[np.bool_]:
    """Return which voxels [D, H, W] show the bead that may be beside the row, or the helix.

    Args:
        field: Shape and spacing.
        rng: In the state that `draw_scene` was given.
        task: One of `PHANTOM_TASKS`.
        truth: What is drawn.
    """
    if task in WITH_BEADS:
        opacity, is_chosen = _draw_beads(field, rng, is_broken=truth.label == 1)
        return np.asarray((opacity > _MASK_OPACITY) & is_chosen)
    inside = draw_helix(field, rng, pitch_mm=truth.pitch_mm) > _MASK_OPACITY
    return inside[::-1].copy() if task == "chirality" and truth.label == 1 else inside


def draw_beads(field: Field, rng: np.random.Generator, *, is_broken: bool) -> Voxels:
    """Return the opacity (0 to 1) of a row of beads, [D, H, W]; in a broken row one bead is beside it.

    Args:
        field: Shape and spacing.
        rng: The same numbers are drawn whether the row is broken or not.
        is_broken: Whether one bead is beside the row.
    """
    opacity, _ = _draw_beads(field, rng, is_broken=is_broken)
    return opacity


def _draw_beads(
    field: Field, rng: np.random.Generator, *, is_broken: bool
) -> tuple[Voxels, NDArray[np.bool_]]:
    """Return the opacity [D, H, W], and the slices [D, 1, 1] of the bead that may be beside the row."""
    z, y, x = field.axes()
    radius = rng.uniform(8.0, 10.0)
    first = rng.uniform(-radius, radius)
    number = np.round((z - first) / (2 * radius))
    u = z - first - 2 * radius * number
    # The bead that may be beside the row is one that is completely inside the field.
    limit = _HALF_FIELD_MM - radius
    low, high = np.ceil((-limit - first) / (2 * radius)), np.floor((limit - first) / (2 * radius))
    chosen = rng.integers(int(low), int(high), endpoint=True)
    row, beside = _draw_positions(rng, min_distance_mm=2 * radius)
    is_chosen = np.asarray(number == chosen)
    is_beside = is_chosen & is_broken
    y0, x0 = (np.where(is_beside, beside[axis], row[axis]) for axis in (0, 1))
    distance = np.sqrt(u**2 + (y - y0) ** 2 + (x - x0) ** 2)
    return _fade(distance / radius), is_chosen


def draw_helix(field: Field, rng: np.random.Generator, *, pitch_mm: float | None = None) -> Voxels:
    """Return the opacity (0 to 1) of a left-handed helix along depth, [D, H, W].

    Args:
        field: Shape and spacing.
        rng: Draws phase, pitch, radius, width and position.
        pitch_mm: Rise in one turn, mm; None: the drawn one.
    """
    z, y, x = field.axes()
    radius, width = rng.uniform(11.0, 15.0), rng.uniform(4.5, 6.0)
    pitch, phase = rng.uniform(36.0, 48.0), rng.uniform(0, 2 * np.pi)
    pitch = pitch if pitch_mm is None else pitch_mm
    y0, x0 = rng.uniform(-4.0, 4.0, 2)
    # Width is R, height is A, depth is S: a right-handed frame, in which a falling angle is left-handed.
    angle = phase - 2 * np.pi * z / pitch
    distance = np.hypot(x - x0 - radius * np.cos(angle), y - y0 - radius * np.sin(angle))
    return _fade(distance / width)


def _fade(distance: NDArray[np.floating]) -> Voxels:
    """Return 1 within half the radius, falling smoothly to 0 at the rim."""
    ramp = np.clip(2.0 - 2.0 * distance, 0.0, 1.0)
    return np.asarray(ramp**2 * (3.0 - 2.0 * ramp), np.float32)


def _draw_positions(rng: np.random.Generator, *, min_distance_mm: float) -> NDArray[np.float64]:
    """Return two lateral positions (height, width) in mm, exchangeable, at least `min_distance_mm` apart."""
    while True:
        positions = rng.uniform(-18.0, 18.0, (2, 2))
        if np.hypot(*(positions[0] - positions[1])) >= min_distance_mm:
            return positions


def _embed(field: Field, rng: np.random.Generator, target: Voxels, *, is_calcified: bool) -> Voxels:
    """Return HU [D, H, W]: `target` in front of the background, with vessels and noise."""
    tissue = rng.uniform(-150.0, 50.0) + (_CALCIFIED_HU if is_calcified else 0.0)
    voxels = _draw_lung(field, rng)
    for _ in range(rng.integers(3, 7)):
        voxels = _blend(voxels, _draw_vessel(field, rng), rng.uniform(-400.0, 0.0))
    voxels = _blend(voxels, target, tissue)
    noise = rng.standard_normal(field.shape, np.float32) * np.float32(rng.uniform(25.0, 60.0))
    return voxels + noise


def _blend(background: Voxels, opacity: Voxels, value: float) -> Voxels:
    return background + opacity * (np.float32(value) - background)


def _draw_lung(field: Field, rng: np.random.Generator) -> Voxels:
    _, y, x = field.axes()
    blur = [4.0 / step for step in field.spacing]
    texture = gaussian_filter(rng.standard_normal(field.shape, np.float32), blur)
    texture *= np.float32(40.0) / texture.std()
    half_height, half_width = rng.uniform(31.0, 37.0, 2)
    radius = np.hypot(y / half_height, x / half_width)
    outside = np.clip((radius - 1.0) * 8.0, 0.0, 1.0).astype(np.float32)
    return _blend(np.float32(_LUNG_HU) + texture, outside, _WALL_HU)


def _draw_vessel(field: Field, rng: np.random.Generator) -> Voxels:
    """Return the opacity of a thin straight tube in a random direction, [D, H, W]."""
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    start, width = rng.uniform(-25.0, 25.0, 3), rng.uniform(1.5, 3.0)
    offsets = [axis - np.float32(first) for axis, first in zip(field.axes(), start, strict=True)]
    z, y, x = (offset * np.float32(step) for offset, step in zip(offsets, direction, strict=True))
    squared = offsets[0] ** 2 + offsets[1] ** 2 + offsets[2] ** 2 - (z + y + x) ** 2
    return _fade(np.sqrt(np.maximum(squared, 0.0)) / np.float32(width))
