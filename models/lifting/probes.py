"""Inputs for the proof of a lift: random images in the sizes and slices that a network can do with."""

import numpy as np

from models.lifting.errors import LiftError
from models.lifting.flow import Shape
from models.lifting.inflate import Array
from models.lifting.kinds import Model
from models.lifting.plan import LiftPlan

OPEN_SIZES = (32, 64, 96, 128)
OPEN_DEPTHS = (8, 16, 32, 64, 128)


def settling_images(plan: LiftPlan, seed: int) -> list[Array]:
    """Return images of the 2D network's own size."""
    image = next((tensor.shape for tensor in plan.model_2d.inputs if len(tensor.shape) == 4), (None,) * 4)
    height, width = size_of(plan)
    return random_images(plan.model_2d, (image[1] or height, image[2] or width), count=8, seed=seed + 1)


def in_channels(image: Array, count: int) -> Array:
    """Return the image as the 2D network wants it.

    Images for the proof have equal channels where they are adapted.
    """
    return image if image.shape[-1] == count or image.ndim != 4 else np.repeat(image[..., :1], count, axis=-1)


def size_of(plan: LiftPlan) -> tuple[int, int]:
    """Return a height and width that the network takes, chosen where it leaves them open."""
    shape = plan.settings["input_shape"]
    image = next((tensor.shape for tensor in plan.model_2d.inputs if len(tensor.shape) == 4), None)
    wanted = (None, None) if image is None else image[1:3] if shape is None else tuple(shape)[1:]
    if None not in wanted:
        return int(wanted[0]), int(wanted[1])
    for side in OPEN_SIZES:
        size = (wanted[0] or side, wanted[1] or side)
        try:
            plan.again(init="random", classes=None, input_shape=(1, *size), depth=1, depth_policy="slicewise")
        except LiftError:
            continue
        return size
    return OPEN_SIZES[-1], OPEN_SIZES[-1]


def with_depth(plan: LiftPlan, size: tuple[int, int]) -> LiftPlan:
    """Return the plan with a number of slices, the least that it can do with where it leaves it open."""
    is_open = any(flow.is_volume and flow.depth is None for flow in plan.graph.inputs)
    shape = plan.settings["input_shape"]
    if not is_open:
        return plan
    for depth in OPEN_DEPTHS:
        try:
            return plan.again(depth=depth, input_shape=None if shape is None else (depth, *size))
        except LiftError:
            if depth == OPEN_DEPTHS[-1]:
                raise
    return plan


def random_images(
    model: Model, size: tuple[int, int], *, count: int, seed: int, channels: int | None = None
) -> list[Array]:
    """Return one normally distributed float32 array per input of a network.

    Args:
        model: The network, of rank 2.
        size: Height and width of the images.
        count: Images, where the network leaves the batch open.
        seed: Of the random values.
        channels: Channels of the images, all equal; None for the network's own.
    """
    generator = np.random.default_rng(seed)
    images = []
    for tensor in model.inputs:
        shape: Shape = tuple(tensor.shape)
        batch = shape[0] or count
        if len(shape) != 4:
            images.append(
                generator.normal(size=(batch, *[side or 8 for side in shape[1:]])).astype("float32")
            )
            continue
        image = generator.normal(size=(batch, *size, 1 if channels else int(shape[-1] or 1))).astype(
            "float32"
        )
        images.append(np.repeat(image, channels, axis=-1) if channels else image)
    return images
