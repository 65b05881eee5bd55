"""Inputs for the proof of a lift: random images in the sizes and slices that a network can do with."""

import keras
import numpy as np

from voxlift.models.lifting.errors import LiftError
from voxlift.models.lifting.flow import Shape
from voxlift.models.lifting.graph import walk_layers
from voxlift.models.lifting.inflate import Array
from voxlift.models.lifting.kinds import Model
from voxlift.models.lifting.plan import LiftPlan

SETTLING = 8  # images behind random batch statistics
PROBES = 2  # slices compared, so that it shows whether the outputs follow the image
OPEN_SIZES = (32, 64, 96, 128)
OPEN_DEPTHS = (8, 16, 32, 64, 128)


def settling_images(plan: LiftPlan, seed: int) -> list[Array]:
    """Return images of the 2D network's own size, the probes among them where they have that size.

    Args:
        plan: A plan of the network.
        seed: Of the random values.

    Returns:
        One float32 array per input; images are [B, H, W, C].
    """
    images = random_images(plan.model_2d, _own_size(plan), count=SETTLING, seed=seed)
    channels = [tensor.shape[-1] for tensor in plan.model_2d.inputs]
    if plan.settings["channels"]:
        images = [in_channels(image[..., :1], count) for image, count in zip(images, channels, strict=True)]
    return images


def probe_images(plan: LiftPlan, size: tuple[int, int], seed: int) -> list[Array]:
    """Return the slices that a proof compares on, with the channels of the lifted network's volumes.

    Args:
        plan: The plan to be proved.
        size: Height and width of the images.
        seed: Of the random values.

    Returns:
        One float32 array per input; images are [B, H, W, C].
    """
    batch = next((tensor.shape[0] for tensor in plan.model_2d.inputs), None) or PROBES
    images = [image[:batch] for image in random_images(plan.model_2d, size, count=SETTLING, seed=seed)]
    channels = plan.settings["channels"]
    if channels is None:
        return images
    return [np.repeat(image[..., :1], channels, axis=-1) if image.ndim == 4 else image for image in images]


def _own_size(plan: LiftPlan) -> tuple[int, int]:
    image = next((tensor.shape for tensor in plan.model_2d.inputs if len(tensor.shape) == 4), (None,) * 4)
    height, width = size_of(plan)
    return image[1] or height, image[2] or width


def in_channels(image: Array, count: int) -> Array:
    """Return an image as the 2D network wants it: where channels are adapted, images have equal ones.

    Args:
        image: [B, H, W, C]; any other array comes back as it is.
        count: Channels of the 2D network's input.
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
    """Return the plan with a number of slices, the least that it can do with where it leaves it open.

    Args:
        plan: A plan, its depth open or not.
        size: Height and width of the images.

    Raises:
        LiftError: No number of slices that is tried suits the network.
    """
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


def random_images(model: Model, size: tuple[int, int], *, count: int, seed: int) -> list[Array]:
    """Return one random array per input of a network, float32: whole numbers where it takes integers.

    Args:
        model: The network, of rank 2.
        size: Height and width of the images.
        count: Images, where the network leaves the batch open.
        seed: Of the random values.

    Returns:
        Arrays [B, H, W, C] for images, [B, ...] for other inputs.
    """
    generator = np.random.default_rng(seed)
    mean, spread = _grey_values(model)
    images = []
    for tensor in model.inputs:
        shape: Shape = tuple(tensor.shape)
        if len(shape) == 4:
            image = (shape[0] or count, *size, int(shape[-1] or 1))
            images.append(_grey_image(generator, image, mean, spread, dtype=str(tensor.dtype)))
        else:
            sides = (shape[0] or count, *[side or 8 for side in shape[1:]])
            is_float = "float" in str(tensor.dtype)
            values = generator.normal(size=sides) if is_float else generator.integers(0, 2, size=sides)
            images.append(values.astype("float32" if is_float else tensor.dtype))
    return images


def _grey_image(
    generator: np.random.Generator, shape: tuple[int, ...], mean: float, spread: float, *, dtype: str
) -> Array:
    if "float" in dtype:
        return generator.normal(mean, spread, size=shape).astype("float32")
    return generator.integers(0, 128, size=shape).astype("float32")  # what any type of integers holds


def _grey_values(model: Model) -> tuple[float, float]:
    """Return the mean and spread of images that a network was made for: 0 to 255 where it scales down."""
    for layer in walk_layers(model):
        is_scaling = isinstance(layer, keras.layers.Rescaling) and np.abs(layer.scale).max() < 0.05
        is_normal = isinstance(layer, keras.layers.Normalization) and layer.built
        if is_scaling or (is_normal and np.max(keras.ops.convert_to_numpy(layer.variance)) > 100):
            return 128.0, 64.0
    return 0.0, 1.0
