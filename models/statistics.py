"""Batch normalisation's moving statistics, measured anew for weights that came from elsewhere."""

from collections.abc import Iterable

import keras

from voxlift.models.backend import Tensor
from voxlift.models.lifting.graph import walk_layers


def recalibrate_statistics(network: keras.Model, batches: Iterable[Tensor]) -> int:
    """Replace the moving mean and variance of every batch normalisation by averages over batches.

    No other weight moves. Every batch counts the same, unlike in training, where the moving average forgets.

    Args:
        network: Its normalisation layers are changed in place; frozen ones keep what they have.
        batches: Inputs of the network, at least one batch; dropout is active, as in training.

    Returns:
        How many batches were seen; 0 where the network has no batch normalisation.

    Raises:
        ValueError: There was no batch.

    Source: Wu and Johnson (2021), Rethinking "Batch" in BatchNorm, arXiv 2105.07576 (precise statistics).
    """
    layers = [layer for layer in walk_layers(network) if isinstance(layer, keras.layers.BatchNormalization)]
    if not layers:
        return 0
    momenta = [layer.momentum for layer in layers]
    count = 0
    try:
        for count, batch in enumerate(batches, start=1):
            for layer in layers:
                layer.momentum = (
                    count - 1
                ) / count  # a running mean: the first batch replaces what was there
            network(batch, training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    if count == 0:
        raise ValueError("Batch statistics need at least one batch, received none.")
    return count
