"""The slice model: one 2D network on every slice of a volume, and its scores or features aggregated."""

import keras
from keras import layers

from voxlift.models.backend import Tensor
from voxlift.models.heads import head_layer
from voxlift.models.join import takes_columns
from voxlift.models.layers.columns import RepeatColumns
from voxlift.models.layers.slice_attention import FrozenNetwork, GatedAttention, JoinNeighbours
from voxlift.models.layers.slices import (
    AggregateSlices,
    FoldSlices,
    ForegroundSlices,
    SliceShape,
    UnfoldSlices,
    select_slices,
)


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
    activation: str = "softmax",
) -> keras.Model:
    """Return a model from volumes [B, D, H, W, C] to what its 2D network gives for slices, [B, classes].

    It shares the weights of the 2D network: training one changes the other. The output is float32
    log-probabilities, whose softmax gives the probabilities, or as `activation` says. Where the network takes
    columns of a table, so does the model, and every slice is scored with the columns of its volume.

    Args:
        network: 2D network from slices [B, H, W, slab * C] (and columns [B, F]) to logits [B, classes].
        depth: Number of slices; the other sizes are those of the network's input. Or give `input_shape`.
        input_shape: Depth, height, width and channels of the volumes.
        axis: `depth`, `height`, `width`, or `all` three (then every slice has the same weight).
        slices: `all`, `central` (the middle half), or `foreground` (see `ForegroundSlices`).
        aggregate: `mean`, `max`, `topk` or `attention`, see `AggregateSlices`. Attention adds weights that
            are trained on volumes; its input is the input of the network's last layer.
        slab: Odd number of neighbouring slices that become channels (2.5D); the edge slice is repeated.
        top: Number of slices that `topk` averages.
        activation: Of the outputs, see `AggregateSlices`: `softmax` (classes), `sigmoid` or `linear`.

    Raises:
        ValueError: A setting is unknown, or the network does not accept these slices.
    """
    shape = _volume_shape(network, depth, input_shape, slab)
    views = select_slices(shape, axis=axis, slices=slices, slab=slab)
    _check_network(network, views)
    scorer = _add_features_output(network) if aggregate == "attention" else network
    inputs = [keras.Input(shape, name="volumes")]
    volumes = inputs[0]
    if takes_columns(network):
        inputs.append(keras.Input(network.inputs[1].shape[1:], name=network.inputs[1].name))
    scored = [_score_slices(inputs, scorer, view, slab) for view in views]
    logits = _concatenate([logits for logits, _ in scored])
    features = _concatenate([features for _, features in scored]) if aggregate == "attention" else None
    counts = _mark_foreground(volumes, views) if slices == "foreground" else None
    combine = AggregateSlices(aggregate, top=top, activation=activation, name="aggregate")
    outputs = combine(logits, features=features, counts=counts)
    return keras.Model(_single(inputs), outputs, name=f"slices_{network.name}")


def pool_slices(
    extractor: keras.Model,
    *,
    input_shape: tuple[int, int, int, int],
    classes: int,
    axis: str = "depth",
    slices: str = "all",
    slab: int = 1,
    is_frozen: bool = True,
    dropout: float = 0.0,
    units: int = 64,
) -> keras.Model:
    """Return a model from volumes [B, D, H, W, C] to float32 logits [B, classes], by features of slices.

    The features of each slice are standardised (layer normalisation), joined with those of both neighbours,
    averaged over the slices by gated attention, and classified by a dense layer.

    Args:
        extractor: 2D network from slices [B, H, W, slab * C] to features [B, F].
        input_shape: Depth, height, width and channels of the volumes.
        classes: Number of classes.
        axis: See `wrap_slices`.
        slices: See `wrap_slices`.
        slab: See `wrap_slices`.
        is_frozen: Whether the extractor keeps its weights and the statistics of its normalisation in
            training, and leaves out its dropout.
        dropout: Rate before the dense layer.
        units: Of the attention.

    Raises:
        ValueError: A setting is unknown, or the network does not accept these slices.
    """
    views = select_slices(input_shape, axis=axis, slices=slices, slab=slab)
    _check_network(extractor, views)
    if is_frozen:
        extractor = FrozenNetwork(extractor.inputs[0], extractor.outputs[0], name=extractor.name)
    volumes = keras.Input(input_shape, name="volumes")
    normalize = layers.LayerNormalization(dtype="float32", name="normalized")
    joined = [
        JoinNeighbours(dtype="float32", name=f"neighbours_{view.axis}")(
            normalize(_extract_features(volumes, extractor, view, slab))
        )
        for view in views
    ]
    counts = _mark_foreground(volumes, views) if slices == "foreground" else None
    pooled = GatedAttention(units, name="attention")(_concatenate(joined), counts=counts)
    pooled = layers.Dropout(dropout, dtype="float32", name="dropout")(pooled) if dropout else pooled
    logits = layers.Dense(classes, dtype="float32", name="logits")(pooled)
    return keras.Model(volumes, logits, name=f"pooled_{extractor.name}")


def is_slice_model(model: keras.Model) -> bool:
    """Return whether a model was made by `wrap_slices`: it scores slices."""
    return find_slice_network(model) is not None and not pools_features(model)


def pools_features(model: keras.Model) -> bool:
    """Return whether a model was made by `pool_slices`: only the whole volume has scores."""
    return any(isinstance(layer, GatedAttention) for layer in model.layers)


def find_slice_network(model: keras.Model) -> keras.Model | None:
    """Return the 2D network that a model applies to slices; None where it does not."""
    if not any(isinstance(layer, FoldSlices) for layer in model.layers):
        return None
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def unwrap_slices(model: keras.Model) -> keras.Model:
    """Return the 2D network inside a slice model, with shared weights; any other model is returned itself."""
    network = find_slice_network(model)
    if network is None or pools_features(model):
        return model
    if len(network.outputs) == 1:
        return network
    return keras.Model(_single(network.inputs), network.outputs[0], name=network.name)


def _single(inputs: list[Tensor]) -> Tensor:
    """Return one input by itself, as it is then given, and several as a list."""
    return inputs[0] if len(inputs) == 1 else inputs


def _volume_shape(
    network: keras.Model, depth: int | None, input_shape: tuple[int, int, int, int] | None, slab: int
) -> tuple[int, int, int, int]:
    if (depth is None) == (input_shape is None):
        raise ValueError(
            "Expected either depth or input_shape (depth, height, width, channels), one of the two."
        )
    if input_shape is not None:
        return input_shape
    _, height, width, channels = network.inputs[0].shape
    if None in (height, width):
        raise ValueError(f"{network.name} accepts slices of any size. Give input_shape instead of depth.")
    return depth or 0, height, width, channels // slab


def _check_network(network: keras.Model, views: tuple[SliceShape, ...]) -> None:
    expected = tuple(network.inputs[0].shape)[1:]
    misfits = [
        f"slices along {view.axis} are {view.shape}"
        for view in views
        if view.count < 1
        or len(expected) != 3
        or any(size not in (None, other) for size, other in zip(expected, view.shape, strict=True))
    ]
    if misfits:
        raise ValueError(
            f"{network.name} expects slices of {expected}, but {', '.join(misfits)}. "
            "Build it for these slices, or choose another axis, slab or shape (all axes need a cube)."
        )


def _add_features_output(network: keras.Model) -> keras.Model:
    """Return the network with a second output: its last layer's input, or the logits if that is no vector."""
    features = head_layer(network).input
    is_vector = not isinstance(features, list) and len(features.shape) == 2
    outputs = [network.outputs[0], features if is_vector else network.outputs[0]]
    return keras.Model(_single(network.inputs), outputs, name=network.name)


def _score_slices(
    inputs: list[Tensor], network: keras.Model, view: SliceShape, slab: int
) -> tuple[Tensor, Tensor]:
    """Return logits [B, count, K] and, if the network has them as second output, features [B, count, F]."""
    fold = FoldSlices(view.axis, first=view.first, count=view.count, slab=slab, name=f"slices_{view.axis}")
    repeat = RepeatColumns(view.count, name=f"columns_{view.axis}")
    outputs = network(_single([fold(inputs[0]), *map(repeat, inputs[1:])]))
    logits, *features = outputs if isinstance(outputs, list | tuple) else (outputs,)
    unfolded = UnfoldSlices(view.count, dtype="float32", name=f"scores_{view.axis}")(logits)
    if not features:
        return unfolded, None
    return unfolded, UnfoldSlices(view.count, dtype="float32", name=f"features_{view.axis}")(features[0])


def _extract_features(volumes: Tensor, extractor: keras.Model, view: SliceShape, slab: int) -> Tensor:
    """Return features [B, count, F]."""
    fold = FoldSlices(view.axis, first=view.first, count=view.count, slab=slab, name=f"slices_{view.axis}")
    unfold = UnfoldSlices(view.count, dtype="float32", name=f"features_{view.axis}")
    return unfold(extractor(fold(volumes)))


def _mark_foreground(volumes: Tensor, views: tuple[SliceShape, ...]) -> Tensor:
    """Return 1.0 or 0.0 for each slice of all views, [B, count]."""
    return _concatenate(
        [ForegroundSlices(view.axis, name=f"foreground_{view.axis}")(volumes) for view in views]
    )


def _concatenate(values: list[Tensor]) -> Tensor:
    """Return values [B, count, ...] of several axes as one tensor."""
    return values[0] if len(values) == 1 else layers.Concatenate(axis=1, dtype="float32")(values)
