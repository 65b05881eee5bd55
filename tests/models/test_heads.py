"""What follows the dense layer: probabilities of grades, numbers in their unit; saved and lifted with it."""

import keras
import numpy as np
import pytest
from scipy.special import expit

from voxlift.models.baselines import build_baseline
from voxlift.models.features import build_feature_extractor
from voxlift.models.heads import append_cuts, append_scale, head_layer, strip_output_layer
from voxlift.models.layers import AggregateSlices
from voxlift.models.lifting import plan_lift
from voxlift.models.slice_model import wrap_slices

SLICES = np.random.default_rng(0).random((3, 12, 16, 1), np.float32)
CUTS = [-1.0, 0.25, 2.0]


def build_network(units):
    return build_baseline("cnn", input_shape=(12, 16, 1), classes=units, filters=(3, 4, 5), dropout=0.0)


def test_grades_follow_the_proportional_odds_model():
    network = build_network(1)
    log_p = append_cuts(network, CUTS).predict(SLICES, verbose=0)
    above = expit(network.predict(SLICES, verbose=0) - np.array([CUTS]))  # [B, K - 1]
    expected = -np.diff(np.concatenate([np.ones((3, 1)), above, np.zeros((3, 1))], axis=1), axis=1)
    np.testing.assert_allclose(np.exp(log_p), expected, rtol=1e-5)


@pytest.mark.parametrize("cuts", [CUTS, [0.5]])
def test_probabilities_of_grades_stay_positive_and_sum_to_one_wherever_the_value_is(cuts):
    inputs = keras.Input((1,))
    layer = append_cuts(keras.Model(inputs, keras.layers.Identity(dtype="float32")(inputs)), cuts)
    found = layer(np.array([[-60.0], [0.0], [60.0]], np.float32))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    "finish", [lambda n: append_cuts(n, CUTS), lambda n: append_scale(n, scale=12.0, offset=60.0)]
)
def test_saving_and_lifting_keep_what_the_network_predicts(tmp_path, finish):
    network = finish(build_network(1))
    expected = network.predict(SLICES, verbose=0)
    network.save(tmp_path / "n.keras")
    np.testing.assert_array_equal(
        keras.models.load_model(tmp_path / "n.keras").predict(SLICES, verbose=0), expected
    )
    lifted = plan_lift(network, depth=5, init="centre").build()
    repeated = np.repeat(SLICES[:, None], 5, axis=1)
    np.testing.assert_allclose(lifted.predict(repeated, verbose=0), expected, rtol=1e-4, atol=1e-4)
    assert finish(lifted) is lifted  # it has its ending
    stripped = strip_output_layer(lifted)
    assert stripped.output_shape == (None, 1)
    assert isinstance(head_layer(lifted), keras.layers.Dense)
    assert build_feature_extractor(lifted).output_shape == build_feature_extractor(stripped).output_shape


@pytest.mark.parametrize("aggregate", ["mean", "max", "topk", "attention"])
def test_slices_of_numbers_and_findings_are_combined_as_their_kind_needs(aggregate):
    outputs = np.random.default_rng(1).normal(size=(2, 6, 3)).astype(np.float32)
    counts = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], np.float32)
    combine = {
        "mean": lambda values: values.mean(axis=0),
        "max": lambda values: values.max(axis=0),
        "topk": lambda values: np.sort(values, axis=0)[-3:].mean(axis=0),
    }
    for activation, predict in (("linear", lambda x: x), ("sigmoid", expit)):
        layer = AggregateSlices(aggregate, top=3, activation=activation)
        found = predict(np.asarray(layer(outputs, counts=counts)))
        own = [predict(row[kept > 0]) for row, kept in zip(outputs, counts, strict=True)]
        if aggregate == "attention":  # a mean with some positive weights
            assert all(
                (f >= o.min(axis=0)).all() and (f <= o.max(axis=0)).all()
                for f, o in zip(found, own, strict=True)
            )
        else:
            np.testing.assert_allclose(
                found, [combine[aggregate](rows) for rows in own], rtol=1e-4, atol=1e-5
            )


def test_a_slice_model_of_a_number_gives_the_mean_of_its_slices():
    network = append_scale(build_network(1), scale=3.0, offset=50.0)
    volumes = np.random.default_rng(2).random((2, 4, 12, 16, 1), np.float32)
    model = wrap_slices(network, depth=4, activation="linear")
    expected = [network.predict(volume, verbose=0).mean(axis=0) for volume in volumes]
    np.testing.assert_allclose(model.predict(volumes, verbose=0), expected, rtol=1e-5)
