"""Attention over the tokens of a volume, and its embeddings, against plain numpy."""

import keras
import numpy as np
import pytest
from scipy.special import softmax

from voxlift.models.layers import TokenAttention3D, TokenEmbedding3D

PLANES, PREFIX, PER_PLANE, CHANNELS = 3, 2, 4, 6


def _oracle(layer, query, value, mask=None):
    """Multi-head attention with the correction of the scores, in float64."""
    weights = [weight.astype("float64") for weight in layer.get_weights()]
    project = [
        np.einsum("btc,cnk->bntk", tokens, weights[2 * part]) + weights[2 * part + 1][None, :, None]
        for part, tokens in enumerate((query, value, value))
    ]
    scores = np.einsum("bntk,bnsk->bnts", project[0], project[1]) / np.sqrt(layer.key_dim)
    scores[..., PREFIX:] -= np.log(PLANES)
    if mask is not None:
        scores = np.where(mask[:, None], scores, -np.inf)
    mixed = np.einsum("bnts,bnsk->btnk", softmax(scores, axis=-1), project[2])
    return np.einsum("btnk,nkc->btc", mixed, weights[6]) + weights[7]


def _tokens(count=PREFIX + PLANES * PER_PLANE, seed=0):
    return np.random.default_rng(seed).normal(size=(2, count, CHANNELS)).astype("float32")


def _attention(**settings):
    layer = TokenAttention3D(2, 5, planes=PLANES, prefix=PREFIX, bias_initializer="normal", **settings)
    layer.build((None, None, CHANNELS), (None, None, CHANNELS))
    return layer


def test_attention_is_that_of_numpy_with_and_without_a_mask():
    layer, tokens, queries = _attention(), _tokens(), _tokens(3, seed=1)
    np.testing.assert_allclose(layer(tokens, tokens), _oracle(layer, tokens, tokens), atol=1e-5)
    mask = np.random.default_rng(2).random((2, 3, tokens.shape[1])) < 0.6
    mask[..., 0] = True
    expected = _oracle(layer, queries, tokens, mask)
    np.testing.assert_allclose(layer(queries, tokens, attention_mask=mask), expected, atol=1e-5)


def test_repeated_planes_give_the_attention_of_one_plane():
    layer = _attention()
    single = keras.layers.MultiHeadAttention(2, 5)
    image = _tokens(PREFIX + PER_PLANE)
    single.build(image.shape, image.shape)
    single.set_weights(layer.get_weights())
    planes = np.tile(image[:, PREFIX:], (1, PLANES, 1))
    received = np.asarray(layer(*[np.concatenate([image[:, :PREFIX], planes], axis=1)] * 2))
    np.testing.assert_allclose(received[:, : PREFIX + PER_PLANE], single(image, image), atol=1e-5)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_scores_are_float32_in_half_precision(precision):
    layer, half, tokens = _attention(), _attention(dtype=precision), _tokens()
    half.set_weights(layer.get_weights())
    received = half(tokens, tokens)
    assert keras.backend.standardize_dtype(received.dtype) == half.compute_dtype
    difference = np.abs(np.asarray(received, "float32") - np.asarray(layer(tokens, tokens)))
    assert difference.max() < 0.05


def test_embeddings_are_added_after_the_new_prefix_tokens():
    layer = TokenEmbedding3D(PLANES, prefix=1, known_prefix=PREFIX)
    tokens = _tokens()
    received = np.asarray(layer(tokens))
    assert received.shape == layer.compute_output_shape(tokens.shape) == (2, 1 + tokens.shape[1], CHANNELS)
    np.testing.assert_allclose(received[:, 0], np.repeat(layer.prefix_tokens, 2, axis=0), atol=1e-6)
    offsets = np.concatenate([layer.prefix_positions, np.reshape(layer.positions, (-1, CHANNELS))])
    np.testing.assert_allclose(received[:, 1:], tokens + offsets, atol=1e-6)
    copy = TokenEmbedding3D.from_config(layer.get_config())
    assert [weight.shape for weight in copy.weights] == []
    with pytest.raises(ValueError, match="multiple"):
        TokenEmbedding3D(PLANES)(_tokens(PLANES + 1))
