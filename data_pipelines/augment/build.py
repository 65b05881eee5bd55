"""From settings to a function of the tf.data graph: draw all parameters, then apply them in a fixed order.

augment = build_augment(strong(), spacing=(2.0, 1.0, 1.0))
tf.data.Dataset.zip(volumes.repeat(epochs), count_seeds(seed)).map(augment, num_parallel_calls=AUTOTUNE)
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from voxlift.data_pipelines.augment import bias, blur, cutout, lattice, lowres, noise, shift, tone, warp
from voxlift.data_pipelines.augment.draws import Drawn
from voxlift.data_pipelines.augment.family import Family
from voxlift.data_pipelines.augment.grid import build_grid
from voxlift.data_pipelines.augment.settings import Augment

AugmentVoxels = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# In the order of the world: the patient moves, the scanner blurs and adds noise, the reconstruction sets
# the tone. A family's place is also its seed's, so that switching one family on or off leaves the others'
# draws as they were.
FAMILIES: tuple[Family, ...] = (lattice, warp, shift, bias, blur, lowres, noise, tone, cutout)


def build_augment(settings: Augment, *, spacing: tuple[float, float, float]) -> AugmentVoxels:
    """A function (voxels, seed int32[2]) -> voxels that varies one volume or one slice.

    The function is pure TensorFlow for `tf.data.Dataset.map`: voxels are float32 [D, H, W, C] or [H, W, C]
    of a static shape, which is kept. Equal seeds give equal voxels under any number of workers; eager calls
    and other graphs agree to rounding.

    Args:
        settings: What may be varied.
        spacing: mm per voxel of the grid, ordered (depth, height, width), for slices too.

    Raises:
        ValueError: when the settings or the spacing are unusable; on the first call, when they do not
            suit the shape.
    """
    settings.check()
    build_grid((1, 1, 1, 1), spacing)

    def augment(voxels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        drawn = draw_augment(settings, voxels.shape, spacing=spacing, seed=seed)
        return apply_augment(voxels, drawn, settings)

    # There is nothing to convert, and looking for it took four seconds at each start.
    plain: AugmentVoxels = tf.autograph.experimental.do_not_convert(augment)
    return plain


def draw_augment(
    settings: Augment,
    shape: Sequence[int],
    *,
    spacing: tuple[float, float, float],
    seed: tf.Tensor | Sequence[int],
) -> Drawn:
    """The parameters for one volume, by name; neutral ones (gamma 1, ...) where a family does not act.

    Args:
        settings: What may be varied.
        shape: Of the voxels, [D, H, W, C] or [H, W, C].
        spacing: mm per voxel, ordered (depth, height, width).
        seed: int32[2].

    Raises:
        ValueError: when settings, shape or spacing are unusable.
    """
    settings.check()
    grid = build_grid(tuple(shape), spacing)
    drawn: Drawn = {"spacing": tf.constant(grid.spacing, tf.float32)}
    seeds = tf.random.split(tf.convert_to_tensor(seed, tf.int32), len(FAMILIES))
    for place, family in enumerate(FAMILIES):
        if family.is_on(settings):
            drawn |= family.draw(settings, grid, seeds[place])
    return drawn


def apply_augment(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:
    """Voxels [D, H, W, C] or [H, W, C] varied by drawn parameters; the same parameters give the same voxels.

    Args:
        voxels: Float32 [D, H, W, C] or [H, W, C] of known sides.
        drawn: What `draw_augment` gave for this shape.
        settings: The same as for drawing.

    Raises:
        ValueError: when the voxels are not float32, or of another rank or unknown sides.
    """
    voxels = tf.convert_to_tensor(voxels)
    if voxels.dtype != tf.float32:
        raise ValueError(
            f"augment: expected float32 voxels, received {voxels.dtype.name}; cast before augmenting"
        )
    build_grid(tuple(voxels.shape), (1.0, 1.0, 1.0))
    is_slice = voxels.shape.rank == 3
    volume = voxels[None] if is_slice else voxels
    for family in FAMILIES:
        if family.is_on(settings):
            volume = family.apply(volume, drawn, settings)
    return volume[0] if is_slice else volume
