"""Random weights with which a deep network neither dies nor explodes.

So that two of its outputs can be compared.
"""

from collections.abc import Iterator

import keras
import numpy as np

from models.lifting.inflate import Array
from models.lifting.kinds import Layer, Model

MOMENTUM = "momentum"


def settle_weights(model: Model, images: list[Array], *, seed: int = 0) -> None:
    """Give a network He-scaled random weights and the batch statistics that belong to them.

    With Keras's initial weights a network of a hundred layers amplifies rounding or lets its signal die; a
    comparison
    of outputs then tells nothing.

    Args:
        model: The 2D network; its weights are overwritten.
        images: One array per input, for the batch statistics.
        seed: Of the random weights.

    Source: He et al. 2015, arXiv 1502.01852.
    """
    generator = np.random.default_rng(seed)
    norms = []
    for layer in walk_layers(model):
        if not isinstance(layer, keras.layers.Normalization):
            layer.set_weights([_draw(weight, generator) for weight in layer.weights])
        if isinstance(layer, keras.layers.BatchNormalization):
            norms.append((layer, layer.momentum))
            layer.momentum = 0.0
    model(images if len(images) > 1 else images[0], training=True)
    for layer, momentum in norms:
        layer.momentum = momentum


def walk_layers(model: Model) -> Iterator[Layer]:
    """Yield all layers of a network, those of nested networks too, each once."""
    seen: set[int] = set()
    waiting = [model]
    while waiting:
        for layer in waiting.pop().layers:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            if isinstance(layer, keras.Model):
                waiting.append(layer)
            else:
                yield layer


def _draw(weight: Layer, generator: np.random.Generator) -> Array:
    shape, name = tuple(weight.shape), weight.name
    if "kernel" in name:
        fan_in = np.prod(shape[:-2]) if "depthwise" in weight.path else np.prod(shape[:-1])
        return generator.normal(0, np.sqrt(2 / fan_in), shape).astype("float32")
    if name in {"gamma", "moving_variance"}:
        return generator.uniform(0.5, 1.5, shape).astype("float32")
    return generator.normal(0, 0.1, shape).astype("float32")
