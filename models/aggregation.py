"""The slice model as a volume model: one 2D network on every slice, and their scores put together."""

import keras
from keras import layers

from voxlift.models.backend import Tensor
from voxlift.models.slicing import (
    AGGREGATES,
    AggregateSlices,
    FoldSlices,
    ForegroundSlices,
    SliceShape,
    UnfoldSlices,
    slices_of,
)

__all__ = ["AGGREGATES", "SliceShape", "is_slice_model", "slices_of", "unwrap_slices", "wrap_slices"]


def wrap_slices(
    network: keras.Model,
    *,
    depth: int | None = None,
    input_shape: tuple[int, int, int, int] | None = None,
    axis: str = "depth",
    slices: str = "all",
    aggregate: str = "mean",
    slab: int = 1,
    top: int = 3,
) -> keras.Model:
    """Return a model from volumes [B, D, H, W, C] to float32 log-probabilities [B, classes].

    The weights are the 2D network's own: training that network changes this model. A softmax of the output
    gives back the probabilities.

    Args:
        network: 2D network from slices [B, H, W, slab * C] to logits [B, classes].
        depth: Number of slices, where `axis` is depth and the rest follows from the network's input.
        input_shape: Depth, height, width, channels of the volumes; or this instead of `depth`.
        axis: `depth`, `height`, `width`, or `all` three (all slices then count alike).
        slices: `all`, `central` (the middle half), or `foreground` (see `ForegroundSlices`).
        aggregate: `mean`, `max`, `topk` or `attention`, see `AggregateSlices`. Attention brings weights of
        its own
            that are trained on volumes, from the features that enter the network's last layer.
        slab: Odd number of neighbouring slices that become channels (2.5D); the edge slice is repeated.
        top: Slices that `topk` averages.

    Raises:
        ValueError: An unknown setting, or slices that the network cannot take.
    """
    shape = _volume_shape(network, depth, input_shape, slab)
    parts = slices_of(shape, axis=axis, slices=slices, slab=slab)
    _check_network(network, parts)
    inner = _with_features(network) if aggregate == "attention" else network
    volumes = keras.Input(shape, name="volumes")
    scored = [_score(volumes, inner, part, slab) for part in parts]
    logits = _join([logits for logits, _ in scored])
    features = _join([features for _, features in scored]) if aggregate == "attention" else None
    counts = None
    if slices == "foreground":
        counts = _join(
            [ForegroundSlices(part.axis, name=f"foreground_{part.axis}")(volumes) for part in parts]
        )
    outputs = AggregateSlices(aggregate, top=top, name="aggregate")(logits, features=features, counts=counts)
    return keras.Model(volumes, outputs, name=f"slices_{network.name}")


def is_slice_model(model: keras.Model) -> bool:
    """Return whether a model came from `wrap_slices`."""
    return any(isinstance(layer, FoldSlices) for layer in model.layers)


def unwrap_slices(model: keras.Model) -> keras.Model:
    """Return the 2D network inside a model of `wrap_slices`, weights shared; any other model unchanged."""
    if not is_slice_model(model):
        return model
    network = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    if len(network.outputs) == 1:
        return network
    return keras.Model(network.inputs[0], network.outputs[0], name=network.name)


def _volume_shape(
    network: keras.Model, depth: int | None, input_shape: tuple[int, int, int, int] | None, slab: int
) -> tuple[int, int, int, int]:
    if (depth is None) == (input_shape is None):
        raise ValueError("Expected either depth or input_shape (depth, height, width, channels), not both.")
    if input_shape is not None:
        return input_shape
    _, height, width, channels = network.input_shape
    if None in (height, width):
        raise ValueError(f"{network.name} takes slices of any size: give input_shape instead of depth.")
    return depth or 0, height, width, channels // slab


def _check_network(network: keras.Model, parts: tuple[SliceShape, ...]) -> None:
    expected = tuple(network.input_shape)[1:]
    misfits = [
        f"{part.axis} gives {part.shape}"
        for part in parts
        if part.count < 1
        or len(expected) != 3
        or any(size not in (None, other) for size, other in zip(expected, part.shape, strict=True))
    ]
    if misfits:
        raise ValueError(
            f"{network.name} takes slices of {expected}, but {', '.join(misfits)}. "
            "Build it for these slices, or choose another axis, slab or shape (all axes need a cube)."
        )


def _with_features(network: keras.Model) -> keras.Model:
    """Return the network with a second output: what enters its last layer, or logits if that is no vector."""
    features = network.layers[-1].input
    is_vector = not isinstance(features, list) and len(features.shape) == 2
    outputs = [network.outputs[0], features if is_vector else network.outputs[0]]
    return keras.Model(network.inputs[0], outputs, name=network.name)


def _score(volumes: Tensor, network: keras.Model, part: SliceShape, slab: int) -> tuple[Tensor, Tensor]:
    fold = FoldSlices(part.axis, first=part.first, count=part.count, slab=slab, name=f"slices_{part.axis}")
    outputs = network(fold(volumes))
    logits, *features = outputs if isinstance(outputs, list | tuple) else (outputs,)
    unfolded = UnfoldSlices(part.count, dtype="float32", name=f"scores_{part.axis}")(logits)
    if not features:
        return unfolded, None
    return unfolded, UnfoldSlices(part.count, dtype="float32", name=f"features_{part.axis}")(features[0])


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else layers.Concatenate(axis=1, dtype="float32")(parts)
