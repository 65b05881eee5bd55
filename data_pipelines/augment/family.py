"""What every kind of variation is: a module with the same three functions."""

from typing import Protocol

import tensorflow as tf

from voxlift.data_pipelines.augment.draws import Drawn
from voxlift.data_pipelines.augment.grid import Grid
from voxlift.data_pipelines.augment.settings import Augment


class Drawing(Protocol):
    """A module that draws parameters; all draw alike, so that a place in the order fixes a seed."""

    def is_on(self, settings: Augment) -> bool:
        """True when the family can act."""

    def draw(self, settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:
        """The parameters for one volume, by name; neutral ones where the family does not act.

        Args:
            settings: What may be varied.
            grid: Sides and spacing of the volume.
            seed: int32 [2].
        """


class Family(Drawing, Protocol):
    """A module that also applies what it drew."""

    def apply(self, voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:
        """The voxels, varied; the same parameters give the same voxels.

        Args:
            voxels: Float32 [D, H, W, C] of known sides.
            drawn: The parameters of all families, and `spacing` in mm per voxel, [3].
            settings: The same as for drawing.

        Returns:
            Float32 of the same shape.
        """
