"""Random images and random weights with which two networks can be compared."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from voxlift.models.lifting.errors import LiftError
from voxlift.models.lifting.graph import walk_layers
from voxlift.models.lifting.plan import LiftPlan
from voxlift.models.lifting.types import Array, Layer, Model, Shape
from voxlift.models.lifting.verification.interpreter import run_graph

STATISTICS_IMAGES = 8  # images from which the statistics of batch normalisations are computed
COMPARISON_IMAGES = 2  # images that are compared; with two, it shows whether the outputs depend on the image
SIZES = (32, 64, 96, 128)  # tried for a network that accepts images of any size
DEPTHS = (8, 16, 32, 64, 128)  # tried for a lift that accepts any number of slices


def set_random_weights(
    model: Model, images: list[Array], *, seed: int = 0, unfolded: Mapping[int, Model] | None = None
) -> None:
    """Give a network He-scaled random weights and the batch statistics that belong to them.

    With Keras's initial weights, a network of a hundred layers amplifies rounding or its activations vanish,
    and a comparison of outputs is meaningless. The statistics are those of inference, without dropout.

    Args:
        model: The 2D network; its weights are overwritten.
        images: One array per input, for the batch statistics.
        seed: Seed of the random weights.
        unfolded: As for `run_graph`.

    Source:
        He et al. 2015, arXiv:1502.01852.
    """
    generator = np.random.default_rng(seed)
    for layer in walk_layers(model):
        if not isinstance(layer, keras.layers.Normalization):
            layer.set_weights([_draw_weight(layer, weight, generator) for weight in layer.weights])
    run_graph(model, images, precision="float32", on_inputs=_set_statistics, unfolded=unfolded)


def _set_statistics(layer: Layer, inputs: list[Any]) -> None:
    """Set the moving statistics of a batch normalisation to those of its input; an `OnInputs` function."""
    if isinstance(layer, keras.layers.BatchNormalization):
        axes = [axis for axis in range(len(inputs[0].shape)) if axis != layer.axis % len(inputs[0].shape)]
        mean, variance = keras.ops.moments(inputs[0], axes=axes)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)


def _draw_weight(layer: Layer, weight: Any, generator: np.random.Generator) -> Array:  # noqa: ANN401  # a Keras variable
    shape, name = tuple(weight.shape), weight.name
    if "kernel" in name:
        is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D) or name == "depthwise_kernel"
        fan_in = np.prod(shape[:-2]) if is_depthwise else np.prod(shape[:-1])
        return generator.standard_normal(shape, "float32") * np.float32(np.sqrt(2 / fan_in))
    if name in {"gamma", "moving_variance"}:
        return generator.uniform(0.5, 1.5, shape).astype("float32")
    return generator.normal(0, 0.1, shape).astype("float32")


def statistics_images(plan: LiftPlan, seed: int) -> list[Array]:
    """Return images of the 2D network's own size, for its batch statistics.

    They include the comparison images if these have the same size.

    Args:
        plan: A plan of the network.
        seed: Seed of the random values.

    Returns:
        One float32 array per input; images are [B, H, W, C].
    """
    image = next((tensor.shape for tensor in plan.model_2d.inputs if len(tensor.shape) == 4), (None,) * 4)
    height, width = choose_size(plan)
    size = image[1] or height, image[2] or width
    images = random_images(plan.model_2d, size, count=STATISTICS_IMAGES, seed=seed)
    channels = [tensor.shape[-1] for tensor in plan.model_2d.inputs]
    if plan.settings["channels"]:
        images = [
            match_channels(image[..., :1], count) for image, count in zip(images, channels, strict=True)
        ]
    return images


def comparison_images(plan: LiftPlan, size: tuple[int, int], seed: int) -> list[Array]:
    """Return the slices that are compared, with the channels of the lifted network's volumes.

    Args:
        plan: The plan to prove.
        size: Height and width of the images.
        seed: Seed of the random values.

    Returns:
        One float32 array per input; images are [B, H, W, C].
    """
    batch = next((tensor.shape[0] for tensor in plan.model_2d.inputs), None) or COMPARISON_IMAGES
    drawn = random_images(plan.model_2d, size, count=STATISTICS_IMAGES, seed=seed)
    images = [image[:batch] for image in drawn]
    channels = plan.settings["channels"]
    if channels is None:
        return images
    return [np.repeat(image[..., :1], channels, axis=-1) if image.ndim == 4 else image for image in images]


def match_channels(image: Array, count: int) -> Array:
    """Return an image with the channels of the 2D network; if their number is adapted, all are equal.

    Args:
        image: [B, H, W, C]; any other array is returned unchanged.
        count: Channels of the 2D network's input.
    """
    return image if image.shape[-1] == count or image.ndim != 4 else np.repeat(image[..., :1], count, axis=-1)


def choose_size(plan: LiftPlan) -> tuple[int, int]:
    """Return a height and width that the network accepts, the first suitable ones if it accepts several."""
    shape = plan.settings["input_shape"]
    image = next((tensor.shape for tensor in plan.model_2d.inputs if len(tensor.shape) == 4), None)
    wanted = (None, None) if image is None else image[1:3] if shape is None else tuple(shape)[1:]
    if None not in wanted:
        return int(wanted[0]), int(wanted[1])
    for side in SIZES:
        size = (wanted[0] or side, wanted[1] or side)
        try:
            plan.replan(
                init="random", classes=None, input_shape=(1, *size), depth=1, depth_policy="slicewise"
            )
        except LiftError:
            continue
        return size
    return SIZES[-1], SIZES[-1]


def choose_depth(plan: LiftPlan, size: tuple[int, int]) -> LiftPlan:
    """Return the plan with a known number of slices, the smallest suitable one if any number is accepted.

    Args:
        plan: The plan.
        size: Height and width of the images.

    Raises:
        LiftError: None of `DEPTHS` is suitable.
    """
    if all(spec.depth is not None for spec in plan.graph.inputs if spec.is_volume):
        return plan
    shape = plan.settings["input_shape"]
    for depth in DEPTHS[:-1]:
        try:
            return plan.replan(depth=depth, input_shape=None if shape is None else (depth, *size))
        except LiftError:
            continue
    return plan.replan(depth=DEPTHS[-1], input_shape=None if shape is None else (DEPTHS[-1], *size))


def random_images(model: Model, size: tuple[int, int], *, count: int, seed: int) -> list[Array]:
    """Return one random float32 array per input of a network, whole numbers for an input of integers.

    Args:
        model: The network, of rank 2.
        size: Height and width of the images.
        count: Batch size, if the network does not fix it.
        seed: Seed of the random values.

    Returns:
        Arrays [B, H, W, C] for images, [B, ...] for other inputs.
    """
    generator = np.random.default_rng(seed)
    mean, spread = _intensity_range(model)
    images = []
    for tensor in model.inputs:
        shape: Shape = tuple(tensor.shape)
        is_float = "float" in str(tensor.dtype)
        if len(shape) == 4:
            sides: tuple[int, ...] = (shape[0] or count, *size, int(shape[-1] or 1))
            # 0 to 127 is within the range of any type of integers.
            values = generator.normal(mean, spread, sides) if is_float else generator.integers(0, 128, sides)
            images.append(values.astype("float32"))
        else:
            sides = (shape[0] or count, *[side or 8 for side in shape[1:]])
            values = generator.normal(size=sides) if is_float else generator.integers(0, 2, size=sides)
            images.append(values.astype("float32" if is_float else tensor.dtype))
    return images


def _intensity_range(model: Model) -> tuple[float, float]:
    """Return mean and spread of the images that a network expects: about 0 to 255 if it scales down."""
    for layer in walk_layers(model):
        is_scaling = isinstance(layer, keras.layers.Rescaling) and np.abs(layer.scale).max() < 0.05
        is_normal = isinstance(layer, keras.layers.Normalization) and layer.built
        if is_scaling or (is_normal and np.max(keras.ops.convert_to_numpy(layer.variance)) > 100):
            return 128.0, 64.0
    return 0.0, 1.0
