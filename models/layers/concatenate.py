"""Concatenation of volumes with features pooled to a single slice."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from voxlift.models.backend import Tensor


@keras.saving.register_keras_serializable(package="voxlift")
class RepeatingConcatenate3D(keras.layers.Layer):
    """Concatenation along channels of volumes [B, D, H, W, C], with single slices repeated along D.

    Sums and products broadcast a global feature [B, 1, H, W, C] over all slices; this layer does so for a
    concatenation, as in the image-level branch of atrous spatial pyramid pooling.

    Source:
        Chen et al. (2017), Rethinking Atrous Convolution, arXiv:1706.05587.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return [B, D, H, W, sum of C]."""
        depths = [ops.shape(volume)[1] for volume in inputs]
        depth = next((each for each in depths if not isinstance(each, int) or each != 1), 1)
        repeated = [
            ops.repeat(volume, depth, axis=1) if each is not depth and volume.shape[1] == 1 else volume
            for volume, each in zip(inputs, depths, strict=True)
        ]
        return ops.concatenate(repeated, axis=-1)

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Return [B, D, H, W, sum of C], None where unknown."""
        depth = next((shape[1] for shape in input_shape if shape[1] != 1), 1)
        channels = [shape[4] for shape in input_shape]
        total = None if None in channels else sum(each for each in channels if each is not None)
        return (input_shape[0][0], depth, *input_shape[0][2:4], total)
