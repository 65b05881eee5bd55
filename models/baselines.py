"""2D networks to start from: a flat CNN, a small residual one, the tutorial's, the zoo's, or a saved one."""

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
from keras import layers

from models.layers import FusedBatchNormalization

Shape: TypeAlias = tuple[int, int, int]  # height, width, channels
Tensor: TypeAlias = Any

HEADS = ("pool", "flatten")
RISING = frozenset({"relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "softplus", "softsign", "linear"})
NORMALIZATION_MOMENTUM = 0.9  # with few steps per epoch, 0.99 leaves the moving averages far behind


def build_baseline(
    name: str,
    *,
    input_shape: Shape,
    classes: int,
    filters: Sequence[int] | None = None,
    dropout: float | None = None,
    head: str | None = None,
    activation: str = "relu",
    weights: str | Path | None = None,
) -> keras.Model:
    """Return a 2D network from slices [B, H, W, C] to float32 logits [B, classes].

    Args:
        name: `cnn`, `resnet`, `tutorial`, a name of `keras.applications`, a `.keras` file, or a run folder
        that
            holds a `model.keras`. A saved slice model gives its 2D network, as it was saved.
        input_shape: Height, width and channels of a slice.
        classes: Number of classes; two classes have two logits.
        filters: Channels per stage of `cnn` (3 to 5), `resnet` (2 to 5) or `tutorial` (2).
        dropout: Rate before the head of `cnn` and `resnet`, 0.2 unless told otherwise.
        head: Of `cnn` and `resnet`: `pool` (global average, the default), or `flatten` (a weight for every
            place).
        activation: Of `cnn` and `resnet`.
        weights: For a name of `keras.applications`: None, `imagenet` (a download), or a weights file of the
            network without its top.

    Raises:
        ValueError: An unknown name, a setting that does not belong to the network, or a saved network of
        another
            input or number of classes.
    """
    settings = {"filters": filters, "dropout": dropout, "head": head, "weights": weights}
    given: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
    if name in BUILDERS:
        _refuse(name, given, allowed={"filters"} if name == "tutorial" else {"filters", "dropout", "head"})
        more = {} if name == "tutorial" else {"activation": activation}
        return BUILDERS[name](input_shape=input_shape, classes=classes, **given, **more)
    if name in application_names():
        _refuse(name, given, allowed={"weights", "dropout"})
        return _build_application(name, input_shape, classes, **given)
    path = Path(name)
    if path.suffix == ".keras" or path.is_dir():
        _refuse(name, given, allowed=set())
        return _load_network(path, input_shape, classes)
    raise ValueError(_unknown(name))


def build_cnn(
    *,
    input_shape: Shape,
    classes: int,
    filters: Sequence[int] = (32, 64, 128),
    dropout: float = 0.2,
    head: str = "pool",
    activation: str = "relu",
) -> keras.Model:
    """Return a flat CNN: per stage a convolution, normalisation, activation and pooling; then global pooling.

    Raises:
        ValueError: Not 3 to 5 stages, or a slice too small for their pooling.
    """
    _check_stages("cnn", filters, input_shape, stages=(3, 5), poolings=len(filters) - 1)
    inputs = x = keras.Input(input_shape, name="slices")
    for stage, channels in enumerate(filters, 1):
        x = _convolve(x, channels, name=f"stage{stage}", activation=None)
        x = _activate_and_pool(x, activation, stage=stage, pools=stage < len(filters))
    return keras.Model(inputs, _head(x, classes, dropout, kind=head), name="cnn")


def build_resnet(
    *,
    input_shape: Shape,
    classes: int,
    filters: Sequence[int] = (16, 32, 64),
    dropout: float = 0.2,
    head: str = "pool",
    activation: str = "relu",
) -> keras.Model:
    """Return a small residual network: a stem, then per stage two residual blocks, the first downsampling.

    Raises:
        ValueError: Not 2 to 5 stages, or a slice too small for their strides.

    Source: He et al. (2016), Deep Residual Learning for Image Recognition, doi:10.1109/CVPR.2016.90.
    """
    _check_stages("resnet", filters, input_shape, stages=(2, 5), poolings=len(filters) - 1)
    inputs = keras.Input(input_shape, name="slices")
    x = _convolve(inputs, filters[0], name="stem", activation=activation)
    for stage, channels in enumerate(filters, 1):
        for block in (1, 2):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _residual_block(x, channels, stride, name=f"stage{stage}_block{block}", activation=activation)
    return keras.Model(inputs, _head(x, classes, dropout, kind=head), name="resnet")


def build_tutorial(*, input_shape: Shape, classes: int, filters: Sequence[int] = (32, 64)) -> keras.Model:
    """Return the CNN of the classic tutorial: two convolutions with pooling, Flatten and two dense layers.

    Raises:
        ValueError: Not two stages, or a slice below 10 x 10 voxels.
    """
    _check_stages("tutorial", filters, input_shape, stages=(2, 2), poolings=0)
    if min(input_shape[:2]) < 10:
        raise ValueError(
            f"The tutorial's CNN needs slices of 10 x 10 voxels or more, received {input_shape}."
        )
    return keras.Sequential(
        [
            keras.Input(input_shape, name="slices"),
            layers.Conv2D(filters[0], 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(filters[1], 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(classes, dtype="float32", name="logits"),
        ],
        name="tutorial",
    )


BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "cnn": build_cnn,
    "resnet": build_resnet,
    "tutorial": build_tutorial,
}


@functools.cache
def application_names() -> tuple[str, ...]:
    """Return the names of the networks in `keras.applications`, sorted."""
    members = inspect.getmembers(keras.applications, inspect.isfunction)
    return tuple(sorted(name for name, _ in members if name[0].isupper()))


def _build_application(
    name: str, input_shape: Shape, classes: int, *, weights: str | Path | None = None, dropout: float = 0.0
) -> keras.Model:
    # The name is a member of `application_names`, so this reads a function and nothing else.
    build = getattr(keras.applications, name)
    try:
        features = build(
            include_top=False,
            weights=str(weights) if weights is not None else None,
            input_shape=input_shape,
            **_without_preprocessing(build),
        )
    except ValueError as error:
        raise ValueError(f"keras.applications.{name} refuses slices of {input_shape}: {error}") from error
    return keras.Model(features.input, _head(features.outputs[0], classes, dropout), name=features.name)


def _without_preprocessing(build: Callable[..., keras.Model]) -> dict[str, bool]:
    """Return the arguments that leave out the scaling for photographs, where a network lets us."""
    parameters = inspect.signature(build).parameters
    return {"include_preprocessing": False} if "include_preprocessing" in parameters else {}


def _load_network(path: Path, input_shape: Shape, classes: int) -> keras.Model:
    from models.aggregation import unwrap_slices  # noqa: PLC0415  # the two rooms know each other

    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"{file} does not exist. Name a .keras file, or the folder of a finished run that holds "
            "model.keras."
        )
    model = keras.models.load_model(file, compile=False)
    network = unwrap_slices(model)
    expected, received = (None, *input_shape), tuple(network.input_shape)
    if len(received) != 4:
        raise ValueError(f"{file} takes inputs of shape {received}; a baseline takes slices [B, H, W, C].")
    if any(None not in pair and pair[0] != pair[1] for pair in zip(expected, received, strict=True)):
        raise ValueError(
            f"{file} takes slices of shape {received[1:]}, but the data has {input_shape}. "
            "Set preprocess.shape and the image columns to those of that network."
        )
    if tuple(network.output_shape) != (None, classes):
        raise ValueError(
            f"{file} gives an output of shape {tuple(network.output_shape)}, but the data has {classes} "
            "classes. "
            "Train it on the same classes, or give it a new head."
        )
    return network


def _convolve(x: Tensor, channels: int, *, name: str, activation: str | None, stride: int = 1) -> Tensor:
    # The normalisation that follows has an offset of its own, so the convolution needs no bias.
    x = layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = FusedBatchNormalization(momentum=NORMALIZATION_MOMENTUM, name=f"{name}_norm")(x)
    return x if activation is None else layers.Activation(activation, name=f"{name}_{activation}")(x)


def _activate_and_pool(x: Tensor, activation: str, *, stage: int, pools: bool) -> Tensor:
    activate = layers.Activation(activation, name=f"stage{stage}_{activation}")
    if not pools:
        return activate(x)
    pool = layers.MaxPooling2D(2, name=f"pool{stage}")
    # The largest value is the same before and after a rising function, and there are fewer values behind it.
    return activate(pool(x)) if activation in RISING else pool(activate(x))


def _residual_block(x: Tensor, channels: int, stride: int, *, name: str, activation: str) -> Tensor:
    shortcut = x
    if stride > 1 or x.shape[-1] != channels:
        shortcut = layers.Conv2D(channels, 1, strides=stride, use_bias=False, name=f"{name}_shortcut_conv")(x)
        shortcut = FusedBatchNormalization(momentum=NORMALIZATION_MOMENTUM, name=f"{name}_shortcut_norm")(
            shortcut
        )
    y = _convolve(x, channels, name=f"{name}_1", activation=activation, stride=stride)
    y = _convolve(y, channels, name=f"{name}_2", activation=None)
    return layers.Activation(activation, name=f"{name}_out")(layers.Add(name=f"{name}_add")([y, shortcut]))


def _head(x: Tensor, classes: int, dropout: float, *, kind: str = "pool") -> Tensor:
    if kind not in HEADS:
        raise ValueError(f"Expected a head of {' or '.join(HEADS)}, received {kind!r}.")
    if len(x.shape) == 4:
        gather = layers.Flatten if kind == "flatten" else layers.GlobalAveragePooling2D
        x = gather(name="features")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return layers.Dense(classes, dtype="float32", name="logits")(x)


def _check_stages(
    name: str, filters: Sequence[int], input_shape: Shape, *, stages: tuple[int, int], poolings: int
) -> None:
    fewest, most = stages
    if not fewest <= len(filters) <= most or min(filters) < 1:
        raise ValueError(
            f"Expected {fewest if fewest == most else f'{fewest} to {most}'} positive filter counts for "
            f"{name}, "
            f"one per stage, received {list(filters)}."
        )
    if min(input_shape[:2]) < 2**poolings:
        raise ValueError(
            f"{name} with {len(filters)} stages halves a slice {poolings} times, but slices are "
            f"{input_shape[0]} x "
            f"{input_shape[1]}. Use fewer stages or larger slices."
        )


def _refuse(name: str, given: dict[str, Any], *, allowed: set[str]) -> None:
    surplus = sorted(set(given) - allowed)
    if surplus:
        raise ValueError(
            f"{name} takes no setting {', '.join(surplus)}; "
            f"it takes {', '.join(sorted(allowed)) if allowed else 'none'}. Leave "
            f"{'it' if len(surplus) == 1 else 'them'} out."
        )


def _unknown(name: str) -> str:
    names = (*BUILDERS, *application_names())
    lowered = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    hint = f" Did you mean {lowered[near[0]]}?" if near else ""
    return (
        f"Unknown baseline {name!r}.{hint} Known are {', '.join(names)}; or name a .keras file or "
        "the folder of a "
        "finished run."
    )
