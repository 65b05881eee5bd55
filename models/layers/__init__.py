"""Layers that Keras lacks: depthwise, separable and ACS convolutions of volumes.

Together with trilinear upsampling, concatenation that repeats single slices, batch normalisation through the
fused kernel or folded away, and convolution where only a few voxels are left.
"""

from voxlift.models.layers.acs import ACSConv3D
from voxlift.models.layers.bias import ChannelBias
from voxlift.models.layers.depthwise import DepthwiseConv3D, SeparableConv3D
from voxlift.models.layers.few_positions import FewPositionsConv3D
from voxlift.models.layers.joining import RepeatingConcatenate3D
from voxlift.models.layers.normalization import FusedBatchNormalization
from voxlift.models.layers.upsampling import TrilinearUpSampling3D

__all__ = [
    "ACSConv3D",
    "ChannelBias",
    "DepthwiseConv3D",
    "FewPositionsConv3D",
    "FusedBatchNormalization",
    "RepeatingConcatenate3D",
    "SeparableConv3D",
    "TrilinearUpSampling3D",
]
