"""Random weights with which a deep network neither dies nor explodes.

So that two of its outputs can be compared.
"""

from typing import Any

import keras
import numpy as np

from voxlift.models.lifting.graph import walk_layers
from voxlift.models.lifting.inflate import Array
from voxlift.models.lifting.kinds import Layer, Model
from voxlift.models.lifting.trace import trace


def settle_weights(model: Model, images: list[Array], *, seed: int = 0) -> None:
    """Give a network He-scaled random weights and the batch statistics that belong to them.

    With Keras's initial weights a network of a hundred layers amplifies rounding or lets its signal die; a
    comparison of outputs then tells nothing. Statistics are those of inference, without dropout: on the very
    images behind the statistics a normalised value stays below the square root of their pixels.

    Args:
        model: The 2D network; its weights are overwritten.
        images: One array per input, for the batch statistics.
        seed: Of the random weights.

    Source: He et al. 2015, arXiv 1502.01852.
    """
    generator = np.random.default_rng(seed)
    for layer in walk_layers(model):
        if not isinstance(layer, keras.layers.Normalization):
            layer.set_weights([_draw(layer, weight, generator) for weight in layer.weights])
    trace(model, images, precision="float32", prepare=_fit_statistics)


def _fit_statistics(layer: Layer, inputs: list[Any]) -> None:
    if isinstance(layer, keras.layers.BatchNormalization):
        axes = [axis for axis in range(len(inputs[0].shape)) if axis != layer.axis % len(inputs[0].shape)]
        mean, variance = keras.ops.moments(inputs[0], axes=axes)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)


def _draw(layer: Layer, weight: Any, generator: np.random.Generator) -> Array:  # noqa: ANN401  # a variable
    shape, name = tuple(weight.shape), weight.name
    if "kernel" in name:
        is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D) or name == "depthwise_kernel"
        fan_in = np.prod(shape[:-2]) if is_depthwise else np.prod(shape[:-1])
        return generator.standard_normal(shape, "float32") * np.float32(np.sqrt(2 / fan_in))
    if name in {"gamma", "moving_variance"}:
        return generator.uniform(0.5, 1.5, shape).astype("float32")
    return generator.normal(0, 0.1, shape).astype("float32")
