"""Concatenation that repeats single slices, against plain numpy."""

import keras
import numpy as np
import pytest
from keras import ops

from arrays import draw
from voxlift.models import backend
from voxlift.models.layers import RepeatingConcatenate3D


@pytest.mark.parametrize("first_is_single", [True, False])
def test_equals_numpy_with_gradient(first_is_single):
    volume, single = draw((2, 3, 4, 5, 2)), draw((2, 1, 4, 5, 3), seed=1)
    pair = [single, volume] if first_is_single else [volume, single]
    layer = RepeatingConcatenate3D()
    expected = np.concatenate([np.broadcast_to(each, (2, 3, *each.shape[2:])) for each in pair], axis=-1)
    outputs = np.asarray(layer(pair))
    np.testing.assert_array_equal(outputs, expected)
    assert outputs.shape == layer.compute_output_shape([each.shape for each in pair])
    weights = draw((2, 3, 4, 5, 5), seed=2)
    _, gradients = backend.value_and_gradients(lambda *each: ops.sum(layer(list(each)) * weights), *pair)
    parts = np.split(weights, [pair[0].shape[-1]], axis=-1)
    for gradient, part, each in zip(gradients, parts, pair, strict=True):
        np.testing.assert_allclose(
            gradient, part.sum(1, keepdims=True) if each is single else part, atol=1e-5
        )


def test_single_slices_alone_stay_single():
    assert RepeatingConcatenate3D()([draw((1, 1, 2, 2, 3)), draw((1, 1, 2, 2, 1))]).shape == (1, 1, 2, 2, 4)


def test_an_unknown_depth_is_resolved_at_run_time(tmp_path):
    volume = keras.Input((None, 4, 5, 2))
    pooled = keras.layers.UpSampling3D((1, 4, 5))(keras.layers.GlobalAveragePooling3D(keepdims=True)(volume))
    model = keras.Model(volume, RepeatingConcatenate3D()([pooled, volume]))
    assert model.output_shape == (None, None, 4, 5, 4)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    values = draw((2, 6, 4, 5, 2))
    expected = np.concatenate(
        [np.broadcast_to(values.mean((1, 2, 3), keepdims=True), values.shape), values], -1
    )
    np.testing.assert_allclose(again.predict(values, verbose=0), expected, atol=1e-6)
