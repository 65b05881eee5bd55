"""What the convolutions of volumes have in common: settings, bias, activation, shapes, configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
from keras import ops

from voxlift.models.backend import Tensor
from voxlift.models.layers.arithmetic import output_size, triple

Setting: TypeAlias = Any  # a name, a configuration or an object, as Keras takes them


@dataclass(frozen=True)
class KernelSettings:
    """How one weight starts and what holds it: arguments of one prefix."""

    prefix: str
    initializer: Setting
    regularizer: Setting
    constraint: Setting

    @classmethod
    def of(
        cls, prefix: str, initializer: Setting, regularizer: Setting, constraint: Setting
    ) -> "KernelSettings":
        """Return settings from whatever Keras accepts: a name, a configuration or an object.

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

    def add(self, layer: keras.layers.Layer, name: str, shape: tuple[int, ...]) -> keras.Variable:
        """Return a new trainable weight of a layer.

        Args:
            layer: That gets the weight.
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

    def config(self) -> dict[str, Any]:
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
        use_bias: Add a weight `bias` per output channel.
        bias_initializer, bias_regularizer, bias_constraint: As in Keras.
        kwargs: What every Keras layer takes (`name`, `dtype`, `trainable`, `activity_regularizer`).

    Raises:
        ValueError: A setting out of its range, or channels first.
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
        self.strides = triple(strides, "strides")
        self.dilation_rate = triple(dilation_rate, "dilation_rate")
        self.padding = padding.lower()
        self.data_format = data_format or "channels_last"
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.bias_settings = KernelSettings.of("bias", bias_initializer, bias_regularizer, bias_constraint)
        self.bias: keras.Variable | None = None
        if self.padding not in {"valid", "same"}:
            raise ValueError(f"Expected padding 'valid' or 'same', received {padding!r}.")
        if self.data_format != "channels_last":
            raise ValueError(
                f"{type(self).__name__} takes volumes [B, D, H, W, C], but data_format is {data_format!r}. "
                "Move the channels to the last axis."
            )

    @property
    def volume_kernel_size(self) -> tuple[int, int, int]:
        """Extent of the kernel in taps along depth, height and width."""
        raise NotImplementedError

    def count_outputs(self, channels: int) -> int:
        """Return the number of output channels for a number of input channels."""
        raise NotImplementedError

    def prepare(self, input_shape: tuple[int | None, ...]) -> int:
        """Return the input's channels; check its shape, and hold later inputs to it.

        Args:
            input_shape: [B, D, H, W, C] of the input, None where unknown.

        Raises:
            ValueError: The input is no volume, its channels are unknown, or it is smaller than the kernel.
        """
        self.compute_output_shape(input_shape)
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(f"{self.name} needs a known number of channels, received shape {input_shape}.")
        self.input_spec = keras.layers.InputSpec(ndim=5, axes={-1: channels})
        return channels

    def add_bias(self, channels: int) -> None:
        """Add the weight `bias`, where one is wanted; after the kernels, to keep Keras's order."""
        if self.use_bias:
            self.bias = self.bias_settings.add(self, "bias", (self.count_outputs(channels),))

    def finish(self, outputs: Tensor) -> Tensor:
        """Return outputs with bias and activation.

        Args:
            outputs: Tensor [B, D', H', W', C'], convolved.

        Returns:
            A tensor of the same shape.
        """
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
                f"{self.name} takes volumes [B, D, H, W, C], received shape {tuple(input_shape)}."
            )
        settings = zip(
            input_shape[1:4], self.volume_kernel_size, self.strides, self.dilation_rate, strict=True
        )
        sizes = [
            output_size(size, kernel=kernel, stride=stride, dilation=dilation, padding=self.padding)
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
            **self.bias_settings.config(),
        }
