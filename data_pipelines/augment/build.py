"""Build the augmentation function of a tf.data graph: draw all parameters, then apply them in a fixed order.

augment = build_augment(strong(), spacing=(2.0, 1.0, 1.0))
tf.data.Dataset.zip(volumes.repeat(epochs), count_seeds(seed)).map(augment, num_parallel_calls=AUTOTUNE)
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import tensorflow as tf

from voxlift.data_pipelines.augment import (
    bias_field,
    blur,
    cutout,
    flip_rotate90,
    gamma_contrast,
    low_resolution,
    noise,
    shift,
    spatial,
)
from voxlift.data_pipelines.augment.settings import Augment
from voxlift.data_pipelines.augment.transform import Drawn, Transform, build_grid

AugmentVoxels = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# In physical order: the patient moves, the scanner blurs and adds noise, the reconstruction sets the
# contrast. The position of a transform also selects its seed, so that switching one on or off does not change
# the draws of the others.
TRANSFORMS: tuple[Transform, ...] = (
    flip_rotate90,
    spatial,
    shift,
    bias_field,
    blur,
    low_resolution,
    noise,
    gamma_contrast,
    cutout,
)
MOVING: tuple[Transform, ...] = (flip_rotate90, spatial, shift)
"""Those that move voxels, and so a mask too; the others change intensities."""


def build_augment(settings: Augment, *, spacing: tuple[float, float, float], masks: int = 0) -> AugmentVoxels:
    """Return a function (voxels, seed int32 [2]) -> voxels that augments one volume or one slice.

    The function is pure TensorFlow for `tf.data.Dataset.map`: voxels are float32 [D, H, W, C] or [H, W, C]
    of a static shape, which is kept. Equal seeds give equal voxels under any number of workers; eager calls
    and other graphs agree to rounding.

    Args:
        settings: The augmentation settings.
        spacing: mm per voxel of the grid, ordered (depth, height, width), for slices too.
        masks: How many of the last channels are masks, which are moved, and no more.

    Raises:
        ValueError: The settings or the spacing are invalid; on the first call, they do not suit the shape.
    """
    settings.check()
    build_grid((1, 1, 1, 1), spacing)

    def augment(voxels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        drawn = draw_augment(settings, voxels.shape, spacing=spacing, seed=seed)
        return apply_augment(voxels, drawn, settings, masks=masks)

    # There is nothing for AutoGraph to convert, and its search took four seconds at each start.
    unconverted: AugmentVoxels = tf.autograph.experimental.do_not_convert(augment)
    return unconverted


def draw_augment(
    settings: Augment,
    shape: Sequence[int],
    *,
    spacing: tuple[float, float, float],
    seed: tf.Tensor | Sequence[int],
) -> Drawn:
    """Return the parameters for one volume, by name; neutral ones (gamma 1) where a transform does not act.

    Args:
        settings: The augmentation settings.
        shape: Of the voxels, [D, H, W, C] or [H, W, C].
        spacing: mm per voxel, ordered (depth, height, width).
        seed: int32 [2].

    Raises:
        ValueError: Settings, shape or spacing are invalid.
    """
    settings.check()
    grid = build_grid(tuple(shape), spacing)
    drawn: Drawn = {"spacing": tf.constant(grid.spacing, tf.float32)}
    seeds = tf.random.split(tf.convert_to_tensor(seed, tf.int32), len(TRANSFORMS))
    for position, transform in enumerate(TRANSFORMS):
        if transform.is_on(settings):
            drawn |= transform.draw(settings, grid, seeds[position])
    return drawn


def apply_augment(voxels: tf.Tensor, drawn: Drawn, settings: Augment, *, masks: int = 0) -> tf.Tensor:
    """Return the voxels transformed by drawn parameters; the same parameters give the same voxels.

    Args:
        voxels: Float32 [D, H, W, C] or [H, W, C] of known sides.
        drawn: From `draw_augment`, for this shape.
        settings: The same as for drawing.
        masks: How many of the last channels are masks: moved by nearest neighbour, 0 where nothing was.

    Raises:
        ValueError: The voxels are not float32, or of another rank or unknown sides.
    """
    voxels = tf.convert_to_tensor(voxels)
    if voxels.dtype != tf.float32:
        raise ValueError(
            f"augment: expected float32 voxels, received {voxels.dtype.name}; cast before augmenting"
        )
    build_grid(tuple(voxels.shape), (1.0, 1.0, 1.0))
    is_slice = voxels.shape.rank == 3
    volume = voxels[None] if is_slice else voxels
    channels = volume.shape[3] - masks
    image = volume[..., :channels] if masks else volume
    for transform in TRANSFORMS:
        if transform.is_on(settings):
            image = transform.apply(image, drawn, settings)
    if masks:
        image = tf.concat([image, _move_masks(volume[..., channels:], drawn, settings)], axis=-1)
    return image[0] if is_slice else image


def _move_masks(masks: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:
    """Return masks [D, H, W, C] moved as the image is."""
    settings = replace(settings, fill_minimum=False, fill=0.0)
    for transform in TRANSFORMS:
        if transform in MOVING and transform.is_on(settings):
            move = spatial.apply_to_mask if transform is spatial else transform.apply
            masks = move(masks, drawn, settings)
    return masks
