"""Three small networks of our own: flat, residual, and the classic tutorial's."""

from collections.abc import Sequence

import keras
from keras import layers

from voxlift.models.baselines.parts import Shape, Tensor, add_head
from voxlift.models.layers import FusedBatchNormalization

RISING = frozenset({"relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "softplus", "softsign", "linear"})
NORMALIZATION_MOMENTUM = 0.9  # with few steps per epoch, 0.99 leaves the moving averages far behind


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

    Args:
        input_shape: Height, width and channels of a slice.
        classes: Number of logits.
        filters: Channels per stage.
        dropout: Rate before the head.
        head: `pool` or `flatten`, see `add_head`.
        activation: Name of a Keras activation.

    Raises:
        ValueError: Not 3 to 5 stages, or a slice too small for their pooling.
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
    return keras.Model(inputs, add_head(x, classes, dropout, kind=head), name="resnet")


def build_tutorial(*, input_shape: Shape, classes: int, filters: Sequence[int] = (32, 64)) -> keras.Model:
    """Return the CNN of the classic tutorial: two convolutions with pooling, Flatten and two dense layers.

    Args:
        input_shape: Height, width and channels of a slice.
        classes: Number of logits.
        filters: Channels of its two convolutions.

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
            f"{input_shape[0]} x {input_shape[1]}. Use fewer stages or larger slices."
        )
