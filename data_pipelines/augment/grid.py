"""The grid that voxels stand on, as far as drawing must know it."""

from dataclasses import dataclass

SPACING_TOLERANCE = (
    0.01  # relative; headers round spacings, and a quarter turn may not stretch anatomy by more
)


@dataclass(frozen=True)
class Grid:
    """Sides [D, H, W] in voxels and spacing (depth, height, width) in mm; a slice is a grid of depth 1."""

    sides: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @property
    def live(self) -> tuple[bool, bool, bool]:
        """Per axis, whether there is anything to move along it."""
        depth, height, width = (side > 1 for side in self.sides)
        return depth, height, width

    def are_alike(self, first: int, second: int) -> bool:
        """True when two axes may be exchanged: equal sides, and spacings equal within one percent.

        Args:
            first: 0, 1 or 2 for depth, height or width.
            second: The other one.
        """
        spacings = self.spacing[first], self.spacing[second]
        return self.sides[first] == self.sides[second] and max(spacings) - min(
            spacings
        ) <= SPACING_TOLERANCE * max(spacings)


def build_grid(shape: tuple[int | None, ...], spacing: tuple[float, float, float]) -> Grid:
    """The grid of voxels shaped [D, H, W, C], or [H, W, C] for a slice.

    Args:
        shape: Static shape of the voxels.
        spacing: mm per voxel, ordered (depth, height, width), for slices too.

    Raises:
        ValueError: when the rank is another, a side is not known, or a spacing is not a positive length.
    """
    if len(shape) not in (3, 4) or any(not side for side in shape):
        raise ValueError(
            f"augment: expected voxels [D, H, W, C] or [H, W, C] of known sides, received {tuple(shape)}; "
            "tf.ensure_shape before augmenting makes a shape known"
        )
    if len(spacing) != 3 or not all(0 < step < float("inf") for step in spacing):
        raise ValueError(
            f"augment: expected spacing as 3 lengths in mm (depth, height, width), received {spacing!r}"
        )
    sides = [int(side) for side in shape if side]
    depth, height, width = (1, *sides[:2]) if len(shape) == 3 else sides[:3]
    return Grid((depth, height, width), (float(spacing[0]), float(spacing[1]), float(spacing[2])))
