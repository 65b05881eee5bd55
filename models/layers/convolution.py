"""The base class of our convolutions of volumes: settings, bias, activation, shapes, configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
from keras import ops

from voxlift.models.backend import Tensor
from voxlift.models.layers.conv_arithmetic import compute_output_size, standardize_triple

Setting: TypeAlias = Any  # a name, a configuration or an object, as Keras takes them


@dataclass(frozen=True)
class WeightSettings:
    """The initializer, regularizer and constraint of one weight, named with one prefix."""

    prefix: str
    initializer: Setting
    regularizer: Setting
    constraint: Setting

    @classmethod
    def from_arguments(
        cls, prefix: str, initializer: Setting, regularizer: Setting, constraint: Setting
    ) -> "WeightSettings":
        """Return the settings from a layer's arguments.

        Args:
            prefix: Of the arguments' names, such as `kernel`.
            initializer: A name, a configuration or an object.
            regularizer: The same, or None.
            constraint: The same, or None.
        """
        return cls(
            prefix,
            keras.initializers.get(initializer),
            keras.regularizers.get(regularizer),
            keras.constraints.get(constraint),
        )

    def add_weight(self, layer: keras.layers.Layer, name: str, shape: tuple[int, ...]) -> keras.Variable:
        """Add a trainable weight to a layer and return it.

        Args:
            layer: The layer.
            name: Of the weight.
            shape: Of the weight.
        """
        return layer.add_weight(
            name=name,
            shape=shape,
            initializer=self.initializer,
            regularizer=self.regularizer,
            constraint=self.constraint,
            trainable=True,
        )

    def get_config(self) -> dict[str, Any]:
        """Return the serialised settings under their argument names."""
        return {
            f"{self.prefix}_initializer": keras.initializers.serialize(self.initializer),
            f"{self.prefix}_regularizer": keras.regularizers.serialize(self.regularizer),
            f"{self.prefix}_constraint": keras.constraints.serialize(self.constraint),
        }


class VolumeConvolution(keras.layers.Layer):
    """Base of the convolutions of volumes [B, D, H, W, C].

    Args:
        strides: One integer, or one per depth, height and width.
        padding: `valid` or `same`, by TensorFlow's arithmetic.
        dilation_rate: One integer, or one per depth, height and width.
        data_format: None or `channels_last`.
        activation: Applied last; None for none.
        use_bias: Whether to add a bias per output channel.
        bias_initializer, bias_regularizer, bias_constraint: As in Keras.
        kwargs: Arguments of every Keras layer (`name`, `dtype`, `trainable`, `activity_regularizer`).

    Raises:
        ValueError: A setting is out of its range, or `data_format` is channels first.
    """

    def __init__(
        self,
        *,
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        dilation_rate: int | Sequence[int] = 1,
        data_format: str | None = None,
        activation: Setting = None,
        use_bias: bool = True,
        bias_initializer: Setting = "zeros",
        bias_regularizer: Setting = None,
        bias_constraint: Setting = None,
        **kwargs: Setting,
    ) -> None:
        super().__init__(**kwargs)
        self.strides = standardize_triple(strides, "strides")
        self.dilation_rate = standardize_triple(dilation_rate, "dilation_rate")
        self.padding = padding.lower()
        self.data_format = data_format or "channels_last"
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.bias_settings = WeightSettings.from_arguments(
            "bias", bias_initializer, bias_regularizer, bias_constraint
        )
        self.bias: keras.Variable | None = None
        if self.padding not in {"valid", "same"}:
            raise ValueError(f"Expected padding 'valid' or 'same', received {padding!r}.")
        if self.data_format != "channels_last":
            raise ValueError(
                f"{type(self).__name__}: expected data_format 'channels_last', received {data_format!r}. "
                "Move the channels to the last axis: [B, D, H, W, C]."
            )

    @property
    def volume_kernel_size(self) -> tuple[int, int, int]:
        """The size of the kernel in taps (depth, height, width)."""
        raise NotImplementedError

    def count_outputs(self, channels: int) -> int:
        """Return the number of output channels for a number of input channels."""
        raise NotImplementedError

    def check_input(self, input_shape: tuple[int | None, ...]) -> int:
        """Check the input's shape, require it of later inputs, and return the number of channels.

        Args:
            input_shape: [B, D, H, W, C] of the input, None where unknown.

        Raises:
            ValueError: The input is no volume, its channels are unknown, or it is smaller than the kernel.
        """
        self.compute_output_shape(input_shape)
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                f"{self.name}: expected a known number of channels, received shape {tuple(input_shape)}. "
                "Set the channels of the network's input."
            )
        self.input_spec = keras.layers.InputSpec(ndim=5, axes={-1: channels})
        return channels

    def build_bias(self, channels: int) -> None:
        """Create `bias` if it is used; call it after the kernels are created, to keep the order of Keras."""
        if self.use_bias:
            self.bias = self.bias_settings.add_weight(self, "bias", (self.count_outputs(channels),))

    def add_bias_and_activate(self, outputs: Tensor) -> Tensor:
        """Return the convolution's outputs [B, D', H', W', C'] with bias and activation."""
        if self.bias is not None:
            outputs = ops.add(outputs, ops.convert_to_tensor(self.bias))
        return outputs if self.activation is None else self.activation(outputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return [B, D, H, W, C] of the output, None where unknown.

        Raises:
            ValueError: The input is no volume, or smaller than the kernel.
        """
        if len(input_shape) != 5:
            raise ValueError(
                f"{self.name}: expected volumes [B, D, H, W, C], received shape {tuple(input_shape)}."
            )
        settings = zip(
            input_shape[1:4], self.volume_kernel_size, self.strides, self.dilation_rate, strict=True
        )
        sizes = [
            compute_output_size(size, kernel=kernel, stride=stride, dilation=dilation, padding=self.padding)
            for size, kernel, stride, dilation in settings
        ]
        if any(size is not None and size < 1 for size in sizes):
            raise ValueError(
                f"{self.name}: a kernel of {self.volume_kernel_size} with dilation {self.dilation_rate} does "
                f"not fit into a volume of {tuple(input_shape[1:4])}. Use padding='same' or a larger volume."
            )
        return (input_shape[0], *sizes, self.count_outputs(input_shape[-1] or 0))

    def get_config(self) -> dict[str, Any]:
        """Return the settings, serialised."""
        return {
            **super().get_config(),
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
            "data_format": self.data_format,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **self.bias_settings.get_config(),
        }
