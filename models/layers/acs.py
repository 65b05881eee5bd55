"""Convolution of volumes with 2D kernels in three views: axial, coronal, sagittal."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import ops

from voxlift.models.backend import Tensor
from voxlift.models.layers.conv_arithmetic import (
    compute_output_size,
    compute_padding_before,
    crop_or_pad,
    standardize_tuple,
)
from voxlift.models.layers.convolution import Setting, VolumeConvolution, WeightSettings
from voxlift.models.layers.depthwise import Triple, depthwise_conv3d


def view_kernel_sizes(kernel_size: tuple[int, int]) -> tuple[Triple, Triple, Triple]:
    """Return the (depth, height, width) of a 2D kernel [kh, kw] in the axial, coronal and sagittal view.

    >>> view_kernel_sizes((5, 3))
    ((1, 5, 3), (5, 1, 3), (5, 3, 1))
    """
    first, second = kernel_size
    return (1, first, second), (first, 1, second), (first, second, 1)


def split_views(count: int) -> tuple[tuple[int, int], ...]:
    """Return the ranges of output channels that the axial, coronal and sagittal view compute.

    >>> split_views(8)
    ((0, 3), (3, 6), (6, 8))
    """
    return tuple(pairwise((0, (count + 2) // 3, count - count // 3, count)))


@dataclass(frozen=True)
class View:
    """One view of an ACS convolution: its kernel's size, and its ranges of output and input channels."""

    kernel_size: Triple
    filters: tuple[int, int]
    channels: tuple[int, int]
    groups: int

    def shape_kernel(self, kernel: Tensor) -> Tensor:
        """Return a 2D kernel [kh, kw, C, N] with the view's thin axis [kd, kh, kw, C, N]."""
        return ops.reshape(kernel, (*self.kernel_size, *kernel.shape[2:]))


@keras.saving.register_keras_serializable(package="voxlift")
class ACSConv3D(VolumeConvolution):
    """Convolution of volumes whose parameters are those of a 2D convolution.

    The output channels are split into three views, as evenly as possible, the first ones larger. The 2D
    kernel [kh, kw] of a channel is

    - axial, in the first third: kh along height, kw along width (1, kh, kw);
    - coronal, in the second: kh along depth, kw along width (kh, 1, kw);
    - sagittal, in the last: kh along depth, kw along height (kh, kw, 1).

    The layer equals `Conv3D` with a kernel (kh, max(kh, kw), kw) that holds every view's plane at tap
    (k - 1) // 2 of its thin axis, and zeros elsewhere (`dense_kernel`): output shape, strides, padding and
    dilation are that layer's, and the views stay aligned where strides are above 1. With `groups` above 1,
    each group belongs to one view.

    Weights: `kernel` [kh, kw, C / groups, filters] and `bias` [filters], as in `keras.layers.Conv2D`.

    Args:
        filters: Output channels.
        kernel_size: One integer, or the 2D kernel's size (kh, kw) in taps.
        groups: 1, or 3 and more.
        kernel_initializer, kernel_regularizer, kernel_constraint: As in Keras.
        kwargs: See `VolumeConvolution`; `strides` and `dilation_rate` are three-dimensional.

    Raises:
        ValueError: A setting is out of its range, or strides and dilation are both above 1.

    Source:
        Yang et al. (2021), Reinventing 2D Convolutions for 3D Images, doi:10.1109/JBHI.2021.3049452.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        *,
        groups: int = 1,
        kernel_initializer: Setting = "glorot_uniform",
        kernel_regularizer: Setting = None,
        kernel_constraint: Setting = None,
        **kwargs: Setting,
    ) -> None:
        super().__init__(**kwargs)
        (self.filters,) = standardize_tuple(filters, 1, "filters")
        (self.groups,) = standardize_tuple(groups, 1, "groups")
        first, second = standardize_tuple(kernel_size, 2, "kernel_size")
        self.kernel_size = (first, second)
        self.kernel_settings = WeightSettings.from_arguments(
            "kernel", kernel_initializer, kernel_regularizer, kernel_constraint
        )
        if self.groups == 2 or self.filters % self.groups:
            raise ValueError(
                f"{self.name}: {self.filters} filters in {self.groups} groups cannot be split into three "
                "views. Use groups=1, or 3 and more groups that divide the filters."
            )
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"{self.name}: strides {self.strides} and dilation {self.dilation_rate} exclude each other, "
                "as in keras.layers.Conv3D. Set one of them to 1."
            )

    @property
    def volume_kernel_size(self) -> Triple:
        """The size in taps (depth, height, width) of the kernel that holds all three views."""
        first, second = self.kernel_size
        return first, max(first, second), second

    def count_outputs(self, channels: int) -> int:  # noqa: ARG002  # the signature of the base class
        """Return the number of output channels."""
        return self.filters

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create `kernel` and `bias`.

        Raises:
            ValueError: The channels cannot be divided into the groups.
        """
        channels = self.check_input(input_shape)
        if channels % self.groups:
            raise ValueError(
                f"{self.name}: {channels} input channels cannot be divided into {self.groups} groups."
            )
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.kernel = self.kernel_settings.add_weight(self, "kernel", shape)
        self.build_bias(channels)

    def call(self, inputs: Tensor) -> Tensor:
        """Return the convolved volumes [B, D', H', W', filters]."""
        kernel = ops.convert_to_tensor(self.kernel)
        outputs = [self._convolve(inputs, kernel, view) for view in self.views(inputs.shape[-1])]
        return self.add_bias_and_activate(
            outputs[0] if len(outputs) == 1 else ops.concatenate(outputs, axis=-1)
        )

    def views(self, channels: int) -> tuple[View, ...]:
        """Return the views that have filters, for a number of input channels."""
        if self.kernel_size == (1, 1):  # the three views are one
            return (View((1, 1, 1), (0, self.filters), (0, channels), self.groups),)
        units = self.groups if self.groups > 1 else self.filters
        outputs, inputs = self.filters // units, channels // self.groups
        ranges = zip(view_kernel_sizes(self.kernel_size), split_views(units), strict=True)
        return tuple(
            View(
                size,
                (first * outputs, last * outputs),
                (first * inputs, last * inputs) if self.groups > 1 else (0, channels),
                last - first if self.groups > 1 else 1,
            )
            for size, (first, last) in ranges
            if last > first
        )

    def dense_kernel(self) -> np.ndarray:
        """Return the kernel [kd, kh, kw, C / groups, filters] with which `Conv3D` computes the same."""
        kernel = self.kernel.numpy()
        dense = np.zeros((*self.volume_kernel_size, *kernel.shape[2:]), kernel.dtype)
        for view in self.views(kernel.shape[2] * self.groups):
            starts = self._offsets(view)
            taps = [slice(start, start + size) for start, size in zip(starts, view.kernel_size, strict=True)]
            filters = slice(*view.filters)
            planes = kernel[..., filters]
            dense[(*taps, slice(None), filters)] = planes.reshape(*view.kernel_size, *planes.shape[2:])
        return dense

    def get_config(self) -> dict[str, Any]:
        """Return the settings, serialised."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "groups": self.groups,
            **self.kernel_settings.get_config(),
        }

    def _offsets(self, view: View) -> tuple[int, ...]:
        """Return the first tap of the full kernel that a view's kernel occupies, per axis."""
        sizes = zip(self.volume_kernel_size, view.kernel_size, strict=True)
        return tuple((full - 1) // 2 - (taps - 1) // 2 for full, taps in sizes)

    def _convolve(self, inputs: Tensor, kernel: Tensor, view: View) -> Tensor:
        kernel = view.shape_kernel(kernel[..., view.filters[0] : view.filters[1]])
        if view.channels != (0, inputs.shape[-1]):
            inputs = inputs[..., view.channels[0] : view.channels[1]]
        padding = self.padding
        if not self._is_aligned_by_backend():
            inputs, padding = crop_or_pad(inputs, self._spans(inputs, view)), "valid"
        if view.groups > 1 and view.groups == inputs.shape[-1]:
            kernel = ops.reshape(kernel, (*view.kernel_size, view.groups, -1))  # [kd, kh, kw, C, M]
            return depthwise_conv3d(
                inputs, kernel, strides=self.strides, padding=padding, dilation_rate=self.dilation_rate
            )
        return ops.conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=padding,
            data_format="channels_last",
            dilation_rate=self.dilation_rate,
        )

    def _is_aligned_by_backend(self) -> bool:
        """Return whether `same` padding of a view's kernel equals that of the full kernel."""
        is_odd = all(taps % 2 for taps in self.kernel_size)
        return (
            self.padding == "same" and max(self.strides) == 1 and (is_odd or max(self.dilation_rate) == 1)
        ) or self.volume_kernel_size == (1, 1, 1)

    def _spans(self, inputs: Tensor, view: View) -> list[tuple[Tensor, Tensor]]:
        """Return the first voxel and the one after the last that a view reads along each axis."""
        spans = []
        for axis, offset in enumerate(self._offsets(view)):
            size = ops.shape(inputs)[axis + 1]
            stride, step = self.strides[axis], self.dilation_rate[axis]
            settings = {"kernel": self.volume_kernel_size[axis], "stride": stride, "dilation": step}
            before = compute_padding_before(size, **settings) if self.padding == "same" else 0
            outputs = compute_output_size(size, **settings, padding=self.padding)
            start = offset * step - before
            spans.append((start, start + (outputs - 1) * stride + (view.kernel_size[axis] - 1) * step + 1))
        return spans
