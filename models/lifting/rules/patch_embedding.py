"""The patch embedding of vision transformers of other libraries, recognised by proof.

Such a layer makes tokens of an image by one convolution, puts constant tokens before them (a class token),
and adds constants (position embeddings). The proof compares the layer, with random weights, with these steps
on random images: what it returns beyond the tokens of its convolution must be the same for all images, at
inference and in training.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from voxlift.models.backend import Tensor
from voxlift.models.lifting.graph import Call
from voxlift.models.lifting.precision import compute_in
from voxlift.models.lifting.rules.base import LayerCall, Lifted
from voxlift.models.lifting.rules.embedding import is_constant, lift_constants
from voxlift.models.lifting.rules.foreign import call_copy, draw_weights
from voxlift.models.lifting.types import Array, Layer, Model, Shape, Weights

PROBES = (0.1, 1.0, 3.0)  # scales of the random images; larger ones hide the constants in rounding
NOTE = "proved to be a convolution and constants: position embeddings, repeated on every plane"


class TokenConstants(keras.layers.Layer):
    """What a patch embedding adds to the tokens of its convolution; its weights are those of the embedding.

    Args:
        source: The patch embedding.
        image_shape: Shape of the image that it reads, without the batch.
        prefix: Number of constant tokens that it puts before the others.
        kwargs: Arguments of every Keras layer.
    """

    def __init__(
        self,
        source: Layer,
        image_shape: Shape,
        prefix: int,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.image_shape = image_shape
        self.prefix = prefix

    def call(self, inputs: Tensor) -> Tensor:
        """Return tokens [B, P + T, C] for tokens [B, T, C]."""
        constants = self.read_constants(self.source.get_weights())
        first, rest = np.split(constants, [self.prefix])
        outputs = inputs + ops.cast(rest, inputs.dtype)
        before = ops.broadcast_to(ops.cast(first, inputs.dtype), (len(inputs), *first.shape))
        return ops.concatenate([before, outputs], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return [B, P + T, C]."""
        return (input_shape[0], int(input_shape[1] or 0) + self.prefix, input_shape[2])

    def read_constants(self, weights: Weights) -> Array:
        """Return the constants [P + T, C] for weights of the patch embedding."""
        image = np.zeros((1, *(int(size or 1) for size in self.image_shape)), "float32")
        with _with_weights(self.source, weights):
            return np.asarray(_rest(self.source, image, self.prefix, training=False)[0], "float32")

    def get_config(self) -> dict[str, Any]:
        """Return the settings of every layer: it is lifted, and never saved."""
        return {"name": self.name, "dtype": keras.dtype_policies.serialize(self.dtype_policy)}


def unfold_patch_embedding(call: Call) -> Model | None:
    """Return the convolution, the tokens and the constants of a patch embedding; None for another layer.

    Args:
        call: The layer where it is called, on one tensor.
    """
    layer, shape = call.operation, tuple(call.inputs[0].shape)
    convolution = _find_convolution(layer)
    is_embedding = len(shape) == 4 and None not in shape[1:] and len(call.outputs[0].shape) == 3
    if convolution is None or not is_embedding or len(call.outputs) != 1:
        return None
    prefix = _count_prefix(layer, shape[1:])
    if prefix is None:
        return None
    image = keras.Input(batch_shape=shape, dtype=call.inputs[0].dtype, name="input")
    x = convolution(image)
    x = keras.layers.Reshape((int(np.prod(x.shape[1:3])), x.shape[3]), name="tokens")(x)
    constants = TokenConstants(layer, shape[1:], prefix, name="positions", dtype=layer.dtype_policy)
    return keras.Model(image, constants(x), name=layer.name)


def _find_convolution(layer: Layer) -> Layer | None:
    """Return the only convolution that a layer holds, None if there is none or several."""
    held = [each for each in layer._flatten_layers() if isinstance(each, keras.layers.Conv2D)]  # noqa: SLF001
    return held[0] if len(held) == 1 and type(held[0]) is keras.layers.Conv2D else None


def _count_prefix(layer: Layer, image_shape: Shape) -> int | None:
    """Return how many constant tokens a layer puts before those of its convolution; None if it does more."""
    generator = np.random.default_rng(0)
    sides = tuple(int(size or 1) for size in image_shape)
    probes = [generator.normal(0, scale, (2, *sides)).astype("float32") for scale in PROBES]
    try:
        with _with_weights(layer, draw_weights(layer)):
            whole = call_copy(layer, probes[0], training=False)
            prefix = whole.shape[1] - _convolve(layer, probes[0]).shape[1]
            rests = [_rest(layer, probe, prefix, training=mode) for probe in probes for mode in (False, True)]
    except Exception:  # noqa: BLE001  # whatever foreign code raises
        return None
    return prefix if prefix >= 0 and is_constant([*rests, rests[0][::-1]]) else None


@contextmanager
def _with_weights(layer: Layer, weights: Weights) -> Iterator[None]:
    """Give a layer other weights for a while, with which it computes in float32."""
    own = layer.get_weights()
    try:
        layer.set_weights(weights)
        with compute_in(layer, "float32"):
            yield
    finally:
        layer.set_weights(own)


def _convolve(layer: Layer, images: Array) -> Array:
    tokens = np.asarray(ops.convert_to_numpy(_find_convolution(layer)(images)))  # type: ignore[misc]
    return tokens.reshape(len(tokens), -1, tokens.shape[-1])


def _rest(layer: Layer, images: Array, prefix: int, *, training: bool) -> Array:
    """Return what a layer returns beyond the tokens of its convolution [B, P + T, C]."""
    tokens = np.pad(_convolve(layer, images), ((0, 0), (prefix, 0), (0, 0)))
    return np.asarray(call_copy(layer, images, training=training) - tokens)


def lift_token_constants(call: LayerCall) -> Lifted:
    """Return TokenEmbedding3D with the constants of a patch embedding."""
    return lift_constants(call, call.layer.prefix, call.layer.read_constants, note=NOTE)
