"""Lifting rules: one function for every 2D layer class, one module for every family of layers.

`base.py` explains how to write a rule.
"""

from collections.abc import Mapping
from typing import Any

from keras import layers

from voxlift.models.layers import CumulativeLogits, FusedBatchNormalization, TargetScale
from voxlift.models.lifting.rules.attention import lift_attention, lift_kimm_attention
from voxlift.models.lifting.rules.base import LiftRule, keep_layer, user_rule
from voxlift.models.lifting.rules.convolution import lift_convolution, lift_depthwise, lift_separable
from voxlift.models.lifting.rules.dense import lift_dense, lift_flatten
from voxlift.models.lifting.rules.elementwise import (
    drop_augmentation,
    lift_activation,
    lift_dropout,
    lift_elementwise,
    lift_prelu,
    lift_resizing,
    lift_scale,
    lift_softmax,
    lift_spatial_dropout,
)
from voxlift.models.lifting.rules.merging import lift_concatenate, lift_merge
from voxlift.models.lifting.rules.normalisation import (
    lift_batch_normalisation,
    lift_channel_normalisation,
    lift_data_normalisation,
)
from voxlift.models.lifting.rules.operations import find_operation_rule
from voxlift.models.lifting.rules.padding import lift_cropping, lift_zero_padding
from voxlift.models.lifting.rules.patch_embedding import TokenConstants, lift_token_constants
from voxlift.models.lifting.rules.pooling import (
    lift_adaptive_pooling,
    lift_average_pooling,
    lift_global_pooling,
    lift_max_pooling,
    lift_upsampling,
)
from voxlift.models.lifting.rules.reshape import lift_permute, lift_reshape
from voxlift.models.lifting.rules.tokens import (
    find_token_operation_rule,
    lift_token_concatenate,
    lift_token_convolution,
    lift_token_group_normalisation,
    lift_token_merge,
    lift_token_pooling,
    lift_token_reshape,
    lift_token_softmax,
)
from voxlift.models.lifting.rules.transposed import lift_transposed
from voxlift.models.lifting.types import Layer

RULES: Mapping[Any, LiftRule] = {
    layers.Conv2D: lift_convolution,
    layers.DepthwiseConv2D: lift_depthwise,
    layers.SeparableConv2D: lift_separable,
    layers.Conv2DTranspose: lift_transposed,
    layers.MaxPooling2D: lift_max_pooling,
    layers.AveragePooling2D: lift_average_pooling,
    layers.GlobalAveragePooling2D: lift_global_pooling,
    layers.GlobalMaxPooling2D: lift_global_pooling,
    layers.UpSampling2D: lift_upsampling,
    layers.Resizing: lift_resizing,
    layers.ZeroPadding2D: lift_zero_padding,
    layers.Cropping2D: lift_cropping,
    layers.Flatten: lift_flatten,
    layers.Reshape: lift_reshape,
    layers.Permute: lift_permute,
    layers.BatchNormalization: lift_batch_normalisation,
    FusedBatchNormalization: lift_batch_normalisation,
    layers.LayerNormalization: lift_channel_normalisation,
    layers.GroupNormalization: lift_channel_normalisation,
    layers.UnitNormalization: lift_channel_normalisation,
    layers.Normalization: lift_data_normalisation,
    layers.Dense: lift_dense,
    layers.PReLU: lift_prelu,
    layers.Softmax: lift_softmax,
    layers.Activation: lift_activation,
    layers.ReLU: lift_activation,
    layers.LeakyReLU: keep_layer,
    layers.ELU: keep_layer,
    layers.Dropout: lift_dropout,
    layers.GaussianDropout: keep_layer,
    layers.GaussianNoise: keep_layer,
    layers.AlphaDropout: lift_dropout,
    layers.SpatialDropout2D: lift_spatial_dropout,
    layers.ActivityRegularization: lift_elementwise,
    layers.Identity: lift_elementwise,
    layers.Rescaling: keep_layer,
    TargetScale: keep_layer,
    CumulativeLogits: lift_scale,
    layers.Add: lift_merge,
    layers.Average: lift_merge,
    layers.Maximum: lift_merge,
    layers.Minimum: lift_merge,
    layers.Multiply: lift_merge,
    layers.Subtract: lift_merge,
    layers.Concatenate: lift_concatenate,
}

# Layers that act on each token of a volume alone, as on each voxel.
TOKENWISE = (
    layers.BatchNormalization, layers.LayerNormalization, layers.UnitNormalization, layers.Dense,
    layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Dropout, layers.GaussianDropout,
    layers.GaussianNoise, layers.ActivityRegularization, layers.Identity, layers.Rescaling,
)  # fmt: skip
TOKENWISE_NAMES = {"LayerScale", "RMSNormalization"}

# Layers that older Keras versions lack, and private layers of keras.applications, are found by name.
RULES_BY_NAME: Mapping[str, LiftRule] = {
    "AdaptiveAveragePooling2D": lift_adaptive_pooling,
    "AdaptiveMaxPooling2D": lift_adaptive_pooling,
    "RMSNormalization": lift_channel_normalisation,
    "LayerScale": lift_scale,
    "CustomScaleLayer": lift_merge,
}


TOKEN_RULES: Mapping[Any, LiftRule] = {
    **{kind: RULES[kind] for kind in TOKENWISE},
    **dict.fromkeys(
        (layers.Add, layers.Average, layers.Maximum, layers.Minimum, layers.Multiply, layers.Subtract),
        lift_token_merge,
    ),
    layers.SpatialDropout1D: keep_layer,
    layers.Conv2D: lift_token_convolution,
    layers.GroupNormalization: lift_token_group_normalisation,
    layers.Softmax: lift_token_softmax,
    TokenConstants: lift_token_constants,
    layers.Concatenate: lift_token_concatenate,
    layers.GlobalAveragePooling1D: lift_token_pooling,
    layers.GlobalMaxPooling1D: lift_token_pooling,
    layers.Reshape: lift_token_reshape,
    layers.MultiHeadAttention: lift_attention,
}


def find_token_rule(operation: Layer) -> LiftRule | None:
    """Return the rule for a layer or raw operation that reads tokens of a volume; None if there is none."""
    kind = type(operation)
    rule = user_rule(operation) or TOKEN_RULES.get(kind)
    if rule is not None:
        return rule
    if kind.__module__.startswith("kimm.") and kind.__name__ == "Attention":
        return lift_kimm_attention
    if kind.__module__.startswith("keras.") and ".layers." in kind.__module__:
        return RULES_BY_NAME.get(kind.__name__) if kind.__name__ in TOKENWISE_NAMES else None
    return find_token_operation_rule(operation)


def find_rule(operation: Layer) -> LiftRule | None:
    """Return the rule for a layer or raw operation: the user's, else the built-in one, else None."""
    return user_rule(operation) or _find_builtin_rule(operation)


def _find_builtin_rule(operation: Layer) -> LiftRule | None:
    """Return the rule for a layer of exactly this class; a subclass may compute anything."""
    kind = type(operation)
    if kind in RULES:
        return RULES[kind]
    if not kind.__module__.startswith("keras."):
        return None
    if ".image_preprocessing." in kind.__module__:
        return drop_augmentation
    if ".layers." in kind.__module__ or ".applications." in kind.__module__:
        return RULES_BY_NAME.get(kind.__name__)
    return find_operation_rule(operation)
