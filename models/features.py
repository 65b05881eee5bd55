"""The features of a network: the vector that its head receives."""

import keras
from keras import layers

from voxlift.models.backend import Tensor
from voxlift.models.join import find_join, image_features
from voxlift.models.layers.outputs import OUTPUT_LAYERS
from voxlift.models.layers.slices import FoldSlices, UnfoldSlices
from voxlift.models.slice_model import is_slice_model, unwrap_slices


def build_feature_extractor(model: keras.Model) -> keras.Model:
    """Return a model with shared weights from volumes [B, D, H, W, C] or slices to float32 features [B, F].

    The features are the input of the last layer with weights, or the output where that is a map; of a map the
    average over its positions. Those of a slice model are averaged over its slices. Where columns of a table
    are joined, they are the features of the image before that.

    Args:
        model: A network of volumes or of slices, or a slice model.

    Raises:
        ValueError: The head is a network of its own, or has several inputs.
    """
    if not is_slice_model(model):
        return keras.Model(model.inputs[0], _pool(_find_features(model)), name="features")
    network = unwrap_slices(model)
    extractor = keras.Model(network.inputs[0], _pool(_find_features(network)), name="slice_features")
    inputs = keras.Input(model.inputs[0].shape[1:], name="volumes")
    views = [
        UnfoldSlices(fold.count, dtype="float32")(extractor(fold(inputs)))
        for fold in model.layers
        if isinstance(fold, FoldSlices)
    ]
    slices = views[0] if len(views) == 1 else layers.Concatenate(axis=1, dtype="float32")(views)
    return keras.Model(inputs, layers.GlobalAveragePooling1D(dtype="float32")(slices), name="features")


def _find_features(network: keras.Model) -> Tensor:
    if len(network.outputs[0].shape) > 2:
        return network.outputs[0]  # a map: the network has no head
    if find_join(network) is not None:
        return image_features(network)
    own = [layer for layer in network.layers if layer.weights and not isinstance(layer, OUTPUT_LAYERS)]
    head = own[-1] if own else None
    if head is None or isinstance(head, keras.Model) or isinstance(head.input, list):
        raise ValueError(f"{network.name}: expected a last layer with weights and one input, as a head has.")
    return head.input


def _pool(features: Tensor) -> Tensor:
    """Return features [B, F] in float32, means over the positions of a map."""
    pools = {
        3: layers.GlobalAveragePooling1D,
        4: layers.GlobalAveragePooling2D,
        5: layers.GlobalAveragePooling3D,
    }
    if len(features.shape) in pools:
        return pools[len(features.shape)](dtype="float32")(features)
    return layers.Activation("linear", dtype="float32")(features)
