"""Trilinear upsampling against Keras in a slice and plain numpy along every axis."""

import keras
import numpy as np
import pytest
from keras import ops

from arrays import draw
from voxlift.models import backend
from voxlift.models.layers import TrilinearUpSampling3D

SHAPE = (2, 3, 5, 4, 2)  # [B, D, H, W, C]


def matrix(size, factor):
    """Weights [size * factor, size] of linear interpolation with voxel centres at half-integers."""
    place = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    low = np.minimum(place.astype(int), max(size - 2, 0))
    weights = np.zeros((size * factor, size))
    for row, (first, at) in enumerate(zip(low, place, strict=True)):
        weights[row, first] += 1 - (at - first)
        if at > first:
            weights[row, first + 1] += at - first
    return weights


@pytest.mark.parametrize("size", [2, (1, 2, 3), (3, 1, 1), (2, 4, 1)])
def test_equals_numpy_with_gradient(size):
    layer = TrilinearUpSampling3D(size)
    maps = [matrix(n, f) for n, f in zip(SHAPE[1:4], layer.size, strict=True)]
    outputs = np.asarray(layer(draw(SHAPE)))
    assert outputs.shape == layer.compute_output_shape(SHAPE)
    np.testing.assert_allclose(outputs, np.einsum("bdhwc,xd,yh,zw->bxyzc", draw(SHAPE), *maps), atol=1e-5)
    weights = draw(outputs.shape, 1)
    _, (gradient,) = backend.value_and_gradients(lambda x: ops.sum(layer(x) * weights), draw(SHAPE))
    np.testing.assert_allclose(gradient, np.einsum("bxyzc,xd,yh,zw->bdhwc", weights, *maps), atol=1e-4)


def test_equals_keras_on_every_slice_of_a_volume_constant_along_depth():
    image = draw((2, 5, 4, 3))
    expected = np.asarray(keras.layers.UpSampling2D((2, 3), interpolation="bilinear")(image))
    outputs = np.asarray(TrilinearUpSampling3D((4, 2, 3))(np.stack([image] * 3, axis=1)))
    for depth in range(12):
        np.testing.assert_array_equal(outputs[:, depth], expected)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_keeps_half_precision(policy):
    layer = TrilinearUpSampling3D(2, dtype=policy)
    assert keras.backend.standardize_dtype(layer(draw(SHAPE)).dtype) == layer.compute_dtype


def test_the_configuration_round_trips_unknown_depth_works_and_wrong_settings_are_refused():
    layer = TrilinearUpSampling3D((1, 2, 3), name="up")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    model = keras.Sequential([keras.Input((None, 5, 4, 2)), again])
    assert model.output_shape == (None, None, 10, 12, 2)
    np.testing.assert_allclose(model(draw(SHAPE)), layer(draw(SHAPE)))
    with pytest.raises(ValueError, match=r"3 .*size.*0"):
        TrilinearUpSampling3D(0)
    with pytest.raises(ValueError, match="data_format"):
        TrilinearUpSampling3D(2, data_format="channels_first")
