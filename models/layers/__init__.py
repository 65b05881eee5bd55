"""Keras layers of Voxlift; importing this package registers them all, so that saved networks load.

Convolutions of volumes (depthwise, separable, ACS, of few voxels, of few channels), trilinear upsampling,
concatenation that repeats single slices, slices of padding that repeat those beside them, fused batch
normalisation, attention and embeddings for tokens of volumes, columns of a table, and the layers of the slice
model.
"""

from voxlift.models.layers.acs import ACSConv3D
from voxlift.models.layers.attention import TokenAttention3D, TokenEmbedding3D
from voxlift.models.layers.columns import JoinColumns, RepeatColumns
from voxlift.models.layers.concatenate import RepeatingConcatenate3D
from voxlift.models.layers.depthwise import DepthwiseConv3D, SeparableConv3D
from voxlift.models.layers.few_channels import FewChannelsConv3D
from voxlift.models.layers.few_positions import FewPositionsConv3D
from voxlift.models.layers.normalization import ChannelBias, FusedBatchNormalization
from voxlift.models.layers.outputs import CumulativeLogits, TargetScale
from voxlift.models.layers.padding import RepeatEdges3D
from voxlift.models.layers.slice_attention import FrozenNetwork, GatedAttention, JoinNeighbours
from voxlift.models.layers.slices import AggregateSlices, FoldSlices, ForegroundSlices, UnfoldSlices
from voxlift.models.layers.upsampling import TrilinearUpSampling3D

__all__ = [
    "ACSConv3D",
    "AggregateSlices",
    "ChannelBias",
    "CumulativeLogits",
    "DepthwiseConv3D",
    "FewChannelsConv3D",
    "FewPositionsConv3D",
    "FoldSlices",
    "ForegroundSlices",
    "FrozenNetwork",
    "FusedBatchNormalization",
    "GatedAttention",
    "JoinColumns",
    "JoinNeighbours",
    "RepeatColumns",
    "RepeatEdges3D",
    "RepeatingConcatenate3D",
    "SeparableConv3D",
    "TargetScale",
    "TokenAttention3D",
    "TokenEmbedding3D",
    "TrilinearUpSampling3D",
    "UnfoldSlices",
]
