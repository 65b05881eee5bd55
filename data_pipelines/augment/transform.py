"""What every transform is (a module with `is_on`, `draw` and `apply`), its grid, and draws from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import tensorflow as tf

from voxlift.data_pipelines.augment.settings import Augment

Drawn = dict[str, tf.Tensor]
"""Drawn parameters by name."""

SPACING_TOLERANCE = 0.01
"""Relative: headers round spacings, and a quarter turn may not stretch anatomy by more."""


@dataclass(frozen=True)
class Grid:
    """Sides [D, H, W] in voxels and spacing (depth, height, width) in mm; a slice is a grid of depth 1."""

    sides: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @property
    def has_extent(self) -> tuple[bool, bool, bool]:
        """Return per axis whether the grid has more than one voxel along it."""
        depth, height, width = (side > 1 for side in self.sides)
        return depth, height, width

    def is_interchangeable(self, first: int, second: int) -> bool:
        """Return whether two axes may be exchanged: equal sides, and spacings equal within one percent.

        Args:
            first: 0, 1 or 2 for depth, height or width.
            second: The other axis.
        """
        low, high = sorted((self.spacing[first], self.spacing[second]))
        return self.sides[first] == self.sides[second] and high - low <= SPACING_TOLERANCE * high


class Drawing(Protocol):
    """A module that draws parameters."""

    def is_on(self, settings: Augment) -> bool:
        """Return whether the settings let the transform act."""

    def draw(self, settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
        """Return the parameters for one volume, by name; neutral ones where the transform does not act.

        Args:
            settings: The augmentation settings.
            grid: Sides and spacing of the volume.
            seed: int32 [2].
        """


class Transform(Drawing, Protocol):
    """A module that draws parameters and applies them."""

    def apply(self, voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:
        """Return the transformed voxels; the same parameters give the same voxels.

        Args:
            voxels: Float32 [D, H, W, C] of known sides.
            drawn: The parameters of all transforms, and `spacing` in mm per voxel, [3].
            settings: The same as for drawing.

        Returns:
            Float32 of the same shape.
        """


def build_grid(shape: tuple[int | None, ...], spacing: tuple[float, float, float]) -> Grid:
    """Return the grid of voxels shaped [D, H, W, C], or [H, W, C] for a slice.

    Args:
        shape: Static shape of the voxels.
        spacing: mm per voxel, ordered (depth, height, width), for slices too.

    Raises:
        ValueError: The rank is another, a side is not known, or a spacing is not a positive length.
    """
    if len(shape) not in (3, 4) or any(not side for side in shape):
        raise ValueError(
            f"augment: expected voxels [D, H, W, C] or [H, W, C] of known sides, received {tuple(shape)}; "
            "call tf.ensure_shape before augmenting"
        )
    if len(spacing) != 3 or not all(0 < step < float("inf") for step in spacing):
        raise ValueError(
            f"augment: expected spacing as 3 lengths in mm (depth, height, width), received {spacing!r}"
        )
    sides = [int(side) for side in shape if side]
    depth, height, width = (1, *sides[:2]) if len(shape) == 3 else sides[:3]
    return Grid((depth, height, width), (float(spacing[0]), float(spacing[1]), float(spacing[2])))


def count_seeds(seed: int | Sequence[int], *, start: int = 0) -> tf.data.Dataset:
    """Return an endless data set of seeds int32 [2]: another for each element, the same ones in each run.

    Zip it with the *repeated* data set, before a parallel map: each epoch then draws anew, and the order of
    the workers has no effect.

    Args:
        seed: Of the run: one number, or two.
        start: How many elements were seen already, for a run that resumes.
    """
    pair = (0, seed) if isinstance(seed, int) else tuple(seed)
    # fold_in returns the type of its second argument
    return tf.data.Dataset.counter(start, dtype=tf.int32).map(
        lambda index: tf.random.fold_in(tf.constant(pair, tf.int32), index)
    )


def draw_uniform(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Return `count` independent scalars, uniform in [0, 1), from one random operation.

    Args:
        seed: int32 [2].
        count: How many.
    """
    numbers: list[tf.Tensor] = tf.unstack(tf.random.stateless_uniform([count], seed))
    return numbers


def scale_to_range(number: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Return uniform numbers scaled to low .. high.

    Args:
        number: In [0, 1), of any shape.
        low: What 0 becomes.
        high: What 1 would become.
    """
    return low + (high - low) * number


def scale_to_log_range(number: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Return uniform numbers scaled to low .. high, uniform in their logarithm.

    Args:
        number: In [0, 1), of any shape.
        low: What 0 becomes, above 0.
        high: What 1 would become.
    """
    return low * tf.pow(high / low, number)


def scale_to_limits(numbers: Sequence[tf.Tensor], limits: Sequence[float]) -> tf.Tensor:
    """Return uniform numbers scaled to -limit .. limit each, float32 [n].

    Args:
        numbers: Scalars in [0, 1).
        limits: As many, each 0 or more.
    """
    return (2.0 * tf.stack(numbers) - 1.0) * tf.constant(limits, tf.float32)


def scale_to_index(number: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """Return a uniform number as one of the integers 0 .. count - 1, int32.

    Args:
        number: Scalar in [0, 1).
        count: How many integers there are, 1 or more.
    """
    top = tf.cast(count, tf.int32)
    # A float32 unit number times a count may round up to the count itself.
    return tf.minimum(tf.cast(number * tf.cast(count, tf.float32), tf.int32), top - 1)
