"""Layers that Keras lacks: depthwise, separable and ACS convolutions of volumes.

Together with trilinear upsampling and batch normalisation through the fused kernel.
"""

from models.layers.normalization import FusedBatchNormalization

__all__ = ["FusedBatchNormalization"]
