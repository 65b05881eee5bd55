"""Three small networks: a flat CNN, a residual network, and the CNN of the classic tutorial."""

from collections.abc import Sequence
from typing import TypeAlias

import keras
from keras import layers

from voxlift.models.backend import Tensor
from voxlift.models.layers import FusedBatchNormalization

Shape: TypeAlias = tuple[int, int, int]  # height, width, channels

HEADS = ("pool", "flatten")
MONOTONIC = frozenset(
    {"relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "softplus", "softsign", "linear"}
)
NORMALIZATION_MOMENTUM = 0.9  # with few steps per epoch, the moving averages would lag behind with 0.99


def build_cnn(
    *,
    input_shape: Shape,
    classes: int,
    filters: Sequence[int] = (32, 64, 128),
    dropout: float = 0.2,
    head: str = "pool",
    activation: str = "relu",
) -> keras.Model:
    """Return a flat CNN: per stage a convolution, normalisation, activation and pooling.

    Args:
        input_shape: Height, width and channels of a slice.
        classes: Number of logits.
        filters: Channels per stage.
        dropout: Rate before the head.
        head: `pool` or `flatten`, see `add_head`.
        activation: Name of a Keras activation.

    Raises:
        ValueError: There are not 3 to 5 stages, or a slice is too small for their pooling.
    """
    _check_stages("cnn", filters, input_shape, stages=(3, 5), poolings=len(filters) - 1)
    inputs = x = keras.Input(input_shape, name="slices")
    for stage, channels in enumerate(filters, 1):
        x = _convolve(x, channels, name=f"stage{stage}", activation=None)
        x = _activate_and_pool(x, activation, stage=stage, pools=stage < len(filters))
    return keras.Model(inputs, add_head(x, classes, dropout, kind=head), name="cnn")


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

    Args:
        input_shape: Height, width and channels of a slice.
        classes: Number of logits.
        filters: Channels per stage.
        dropout: Rate before the head.
        head: `pool` or `flatten`, see `add_head`.
        activation: Name of a Keras activation.

    Raises:
        ValueError: There are not 2 to 5 stages, or a slice is too small for their strides.

    Source:
        He et al. (2016), Deep Residual Learning for Image Recognition, doi:10.1109/CVPR.2016.90.
    """
    _check_stages("resnet", filters, input_shape, stages=(2, 5), poolings=len(filters) - 1)
    inputs = keras.Input(input_shape, name="slices")
    x = _convolve(inputs, filters[0], name="stem", activation=activation)
    for stage, channels in enumerate(filters, 1):
        for block in (1, 2):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _residual_block(x, channels, stride, name=f"stage{stage}_block{block}", activation=activation)
    return keras.Model(inputs, add_head(x, classes, dropout, kind=head), name="resnet")


def build_tutorial(*, input_shape: Shape, classes: int, filters: Sequence[int] = (32, 64)) -> keras.Model:
    """Return the CNN of the classic tutorial: two convolutions with pooling, Flatten and two dense layers.

    Args:
        input_shape: Height, width and channels of a slice.
        classes: Number of logits.
        filters: Channels of its two convolutions.

    Raises:
        ValueError: There are not two stages, or a slice is below 10 x 10 voxels.
    """
    _check_stages("tutorial", filters, input_shape, stages=(2, 2), poolings=0)
    if min(input_shape[:2]) < 10:
        raise ValueError(
            f"tutorial: expected slices of 10 x 10 voxels or more, received {input_shape[0]} x "
            f"{input_shape[1]}. Use larger slices."
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


def add_head(x: Tensor, classes: int, dropout: float, *, kind: str = "pool") -> Tensor:
    """Return float32 logits [B, classes] of a feature map [B, H, W, C] or of features [B, C].

    Args:
        x: Symbolic output of the network.
        classes: Number of logits.
        dropout: Rate before them, 0 for none.
        kind: How a feature map becomes features: `pool` (global average) or `flatten` (a weight for every
            position).

    Raises:
        ValueError: The kind is neither.
    """
    if kind not in HEADS:
        raise ValueError(f"Expected head {' or '.join(HEADS)}, received {kind!r}.")
    if len(x.shape) == 4:
        pool = layers.Flatten if kind == "flatten" else layers.GlobalAveragePooling2D
        x = pool(name="features")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return layers.Dense(classes, dtype="float32", name="logits")(x)


def _convolve(x: Tensor, channels: int, *, name: str, activation: str | None, stride: int = 1) -> Tensor:
    # The normalisation has an offset of its own, so the convolution needs no bias.
    x = layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = FusedBatchNormalization(momentum=NORMALIZATION_MOMENTUM, name=f"{name}_norm")(x)
    return x if activation is None else layers.Activation(activation, name=f"{name}_{activation}")(x)


def _activate_and_pool(x: Tensor, activation: str, *, stage: int, pools: bool) -> Tensor:
    activate = layers.Activation(activation, name=f"stage{stage}_{activation}")
    if not pools:
        return activate(x)
    pool = layers.MaxPooling2D(2, name=f"pool{stage}")
    # A monotonic activation does not change which value is largest, and pooling first leaves fewer values.
    return activate(pool(x)) if activation in MONOTONIC else pool(activate(x))


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


def _check_stages(
    name: str, filters: Sequence[int], input_shape: Shape, *, stages: tuple[int, int], poolings: int
) -> None:
    fewest, most = stages
    if not fewest <= len(filters) <= most or min(filters) < 1:
        raise ValueError(
            f"Expected {fewest if fewest == most else f'{fewest} to {most}'} positive filter counts for "
            f"{name}, one per stage, received {list(filters)}."
        )
    if min(input_shape[:2]) < 2**poolings:
        raise ValueError(
            f"{name} with {len(filters)} stages halves a slice {poolings} times, but slices are "
            f"{input_shape[0]} x {input_shape[1]} voxels. Use fewer stages or larger slices."
        )
