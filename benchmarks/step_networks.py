"""The networks of `train_step.py`: lifted ones of Keras, and the same written in PyTorch or from MONAI."""

import importlib
import importlib.util
from itertools import pairwise
from typing import Any, TypeAlias

Tensor: TypeAlias = Any  # frameworks are imported late
Model: TypeAlias = Any
Torch: TypeAlias = Any  # the module

FLAT = {"demo": (16, 32, 64), "cnn": (32, 64, 128)}  # filters of the flat CNN; the demo trains `demo`
RESNET18 = (64, 128, 256, 512)
DROPOUT = 0.2


def build_keras(network: str, side: int, classes: int) -> Model:
    """Return the 3D network, lifted from the 2D one with the same stride along depth as in the plane.

    Args:
        network: A name of `FLAT`, `resnet18` or `densenet121`.
        side: Voxels along each axis.
        classes: Number of logits.
    """
    from voxlift.models.lifting import to_3d

    return to_3d(build_2d(network, side, classes), depth=side, depth_policy="isotropic")


def build_2d(network: str, side: int, classes: int) -> Model:
    """Return the 2D network [B, side, side, 1] -> float32 logits.

    Args:
        network: A name of `FLAT`, `resnet18` or `densenet121`.
        side: Voxels along each axis.
        classes: Number of logits.
    """
    import keras

    from voxlift.models.baselines import build_baseline

    if network in FLAT:
        return build_baseline("cnn", input_shape=(side, side, 1), classes=classes, filters=FLAT[network])
    if network == "densenet121":
        return build_baseline("DenseNet121", input_shape=(side, side, 1), classes=classes)
    inputs = keras.Input((side, side, 1))
    return keras.Model(inputs, build_resnet18(inputs, classes))


def build_resnet18(x: Tensor, classes: int) -> Tensor:
    """Return the logits of ResNet-18: stem of 7, four stages of two basic blocks.

    Args:
        x: Symbolic images [B, H, W, C].
        classes: Number of logits.
    """
    from keras import layers

    x = layers.ReLU()(convolve_and_normalise(x, 64, size=7, stride=2))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    for stage, filters in enumerate(RESNET18):
        for block in range(2):
            stride = 2 if stage and not block else 1
            shortcut = x if stride == 1 else convolve_and_normalise(x, filters, size=1, stride=2)
            y = layers.ReLU()(convolve_and_normalise(x, filters, stride=stride))
            x = layers.ReLU()(layers.Add()([convolve_and_normalise(y, filters), shortcut]))
    return layers.Dense(classes, dtype="float32")(layers.GlobalAveragePooling2D()(x))


def convolve_and_normalise(x: Tensor, filters: int, *, size: int = 3, stride: int = 1) -> Tensor:
    """Return the output of a convolution and its normalisation.

    Args:
        x: Symbolic images [B, H, W, C].
        filters: Output channels.
        size: Taps of the kernel along height and width.
        stride: Pixels from output to output.
    """
    from keras import layers

    x = layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9)(x)


def build_torch(torch: Torch, network: str, classes: int) -> Model:
    """Return the network of `build_keras` in PyTorch: the CNN written here, the others from MONAI.

    Without MONAI, ResNet-18 is written here too.

    Args:
        torch: The module.
        network: As for `build_keras`.
        classes: Number of logits.
    """
    if network in FLAT:
        return build_torch_cnn(torch, FLAT[network], classes)
    if network == "resnet18" and importlib.util.find_spec("monai") is None:
        return build_torch_resnet18(torch, classes)
    nets = importlib.import_module("monai.networks.nets")
    if network == "resnet18":
        return nets.resnet18(
            spatial_dims=3, n_input_channels=1, num_classes=classes, conv1_t_stride=2, bias_downsample=False
        )
    return nets.DenseNet121(spatial_dims=3, in_channels=1, out_channels=classes)


def build_torch_cnn(torch: Torch, filters: tuple[int, ...], classes: int) -> Model:
    """Return the flat CNN in PyTorch.

    Args:
        torch: The module.
        filters: Channels per stage.
        classes: Number of logits.
    """
    nn, layers, channels = torch.nn, [], 1
    for stage, width in enumerate(filters):
        layers += [nn.MaxPool3d(2)] if stage else []
        layers += [
            nn.Conv3d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        ]
        channels = width
    head = [nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(channels, classes)]
    return nn.Sequential(*layers, *head)


def build_torch_resnet18(torch: Torch, classes: int) -> Model:
    """Return the 3D ResNet-18 of `build_resnet18` in PyTorch.

    Args:
        torch: The module.
        classes: Number of logits.
    """
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        """Two convolutions of 3 with a shortcut."""

        def __init__(self, before: int, after: int) -> None:
            super().__init__()
            stride = 1 if before == after else 2
            self.first = _torch_convolution(nn, before, after, stride=stride)
            self.second = _torch_convolution(nn, after, after)
            is_same = before == after
            self.shortcut = nn.Identity() if is_same else _torch_convolution(nn, before, after, 1, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.second(nn.functional.relu(self.first(x)))
            return nn.functional.relu(y + self.shortcut(x))

    stem = [_torch_convolution(nn, 1, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool3d(3, 2, padding=1)]
    widths = [64, *(width for width in RESNET18 for _ in range(2))]
    blocks = [Block(before, after) for before, after in pairwise(widths)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(512, classes))


def _torch_convolution(nn: Any, before: int, after: int, size: int = 3, stride: int = 1) -> Model:  # noqa: ANN401
    convolution = nn.Conv3d(before, after, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm3d(after))
