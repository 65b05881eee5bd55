"""The slice model of a volume aggregates the scores of its 2D network on the slices."""

import keras
import numpy as np
import pytest
from scipy.special import expit, softmax

from arrays import draw
from voxlift.models.baselines import build_baseline
from voxlift.models.layers.slices import AggregateSlices
from voxlift.models.slice_model import (
    find_slice_network,
    is_slice_model,
    pool_slices,
    select_slices,
    unwrap_slices,
    wrap_slices,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (5, 8, 9, 2)  # [D, H, W, C]


def draw_volumes(shape=SHAPE):
    return draw((3, *shape))


def build(shape=(8, 9, 2), classes=3):
    network = build_baseline("cnn", input_shape=shape, classes=classes, filters=(3, 4, 5))
    random = np.random.default_rng(5)
    network.set_weights([random.uniform(0.1, 1.0, w.shape) for w in network.get_weights()])
    return network


def probabilities_of_slices(network, volumes):
    """[B, D, K]: the 2D network on every depth slice, in plain numpy around it."""
    logits = [np.asarray(network(volumes[:, n]), "float64") for n in range(volumes.shape[1])]
    slices = [softmax(each, axis=-1) for each in logits]
    return np.stack(slices, axis=1)


ORACLES = {
    "mean": lambda p: p.mean(1),
    "max": lambda p: p.max(1) / p.max(1).sum(-1, keepdims=True),
    "topk": lambda p: np.sort(p, 1)[:, -2:].mean(1) / np.sort(p, 1)[:, -2:].mean(1).sum(-1, keepdims=True),
}


@pytest.mark.parametrize("how", ORACLES)
def test_aggregates_equal_numpy_and_ignore_the_order_of_slices(how):
    network, volumes = build(), draw_volumes()
    model = wrap_slices(network, depth=5, aggregate=how, top=2)
    expected = ORACLES[how](probabilities_of_slices(network, volumes))
    assert model.output_shape == (None, 3)
    np.testing.assert_allclose(np.exp(model(volumes)), expected, atol=1e-6)
    np.testing.assert_allclose(softmax(np.asarray(model(volumes)), axis=-1), expected, atol=1e-6)
    np.testing.assert_allclose(model(volumes[:, [3, 0, 4, 1, 2]]), model(volumes), atol=1e-5)


@pytest.mark.parametrize("how", ["mean", "max", "topk", "attention"])
def test_certain_slices_give_finite_log_probabilities(how):
    logits = np.array([[[300.0, 0.0], [300.0, -300.0]]], "float32")
    outputs = np.asarray(AggregateSlices(how)(logits))
    assert np.isfinite(outputs).all()
    assert -310 < outputs[0, 1] < -290  # a probability would have underflowed to zero


def test_training_the_2d_network_changes_the_wrapped_model():
    network = build()
    model = wrap_slices(network, depth=5)
    before = np.asarray(model(draw_volumes()))
    network.layers[-1].bias.assign([3.0, 0.0, 0.0])
    assert np.abs(np.asarray(model(draw_volumes())) - before).max() > 0.1
    assert unwrap_slices(model) is network
    assert is_slice_model(model)
    assert not is_slice_model(network)
    assert unwrap_slices(network) is network


def test_slabs_hold_neighbours_and_repeat_the_edge():
    network = build((8, 9, 6))
    volumes = draw_volumes()
    padded = np.concatenate([volumes[:, :1], volumes, volumes[:, -1:]], axis=1)
    slabs = np.concatenate([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], axis=-1)
    expected = probabilities_of_slices(network, slabs).mean(1)
    np.testing.assert_allclose(np.exp(wrap_slices(network, depth=5, slab=3)(volumes)), expected, atol=1e-6)


@pytest.mark.parametrize(("axis", "place"), [("height", 2), ("width", 3)])
def test_other_axes_equal_moved_volumes(axis, place):
    sides = [side for at, side in enumerate(SHAPE[:3], 1) if at != place]
    network = build((*sides, 2))
    model = wrap_slices(network, input_shape=SHAPE, axis=axis)
    expected = probabilities_of_slices(network, np.moveaxis(draw_volumes(), place, 1)).mean(1)
    np.testing.assert_allclose(np.exp(model(draw_volumes())), expected, atol=1e-6)


def test_all_axes_count_every_slice_alike():
    network = build((7, 7, 1))
    volumes = draw_volumes((7, 7, 7, 1))
    model = wrap_slices(network, input_shape=(7, 7, 7, 1), axis="all")
    views = [probabilities_of_slices(network, np.moveaxis(volumes, axis, 1)) for axis in (1, 2, 3)]
    np.testing.assert_allclose(np.exp(model(volumes)), np.concatenate(views, 1).mean(1), atol=1e-6)


def test_central_slices_are_the_middle_half():
    network = build()
    expected = probabilities_of_slices(network, draw_volumes()[:, 1:4]).mean(1)
    np.testing.assert_allclose(
        np.exp(wrap_slices(network, depth=5, slices="central")(draw_volumes())), expected, atol=1e-6
    )


@pytest.mark.parametrize("how", ["mean", "max", "topk"])
def test_only_foreground_slices_count(how):
    network = build()
    volumes = draw_volumes() * 0.01
    volumes[0, 1:3] += np.linspace(0, 50, 72).reshape(8, 9, 1)
    volumes[1, 4] += 100.0
    volumes[2] = 7.0  # nothing stands out: every slice counts
    outputs = np.exp(wrap_slices(network, depth=5, slices="foreground", aggregate=how, top=1)(volumes))
    oracle = ORACLES["max"] if how != "mean" else ORACLES["mean"]
    for volume, kept in enumerate(([1, 2], [4], range(5))):
        scores = probabilities_of_slices(network, volumes[volume : volume + 1, list(kept)])
        np.testing.assert_allclose(outputs[volume], oracle(scores)[0], atol=1e-5)


def test_attention_learns_which_slice_matters():
    # Only the slice marked by its first feature shows the class; the other slices have random scores.
    random = np.random.default_rng(0)
    features = random.normal(size=(64, 6, 4)).astype("float32")
    labels = random.integers(0, 2, 64)
    logits = random.normal(size=(64, 6, 2)).astype("float32") * 3
    features[:, 2, 0], features[:, [0, 1, 3, 4, 5], 0] = 3.0, -3.0
    logits[:, 2] = np.where(np.eye(2)[labels] == 1, 3.0, -3.0)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 2)), keras.Input((6, 4))
    model = keras.Model(inputs, AggregateSlices("attention", units=8)(inputs[0], features=inputs[1]))
    model.compile(keras.optimizers.Adam(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = model.evaluate([logits, features], labels, verbose=0)
    model.fit([logits, features], labels, epochs=20, verbose=0)
    assert model.evaluate([logits, features], labels, verbose=0) < 0.1 < before


def test_attention_reads_the_features_and_the_network_can_be_unwrapped():
    network = build()
    model = wrap_slices(network, depth=5, aggregate="attention", slices="foreground")
    assert model.get_layer("features_depth").output.shape == (None, 5, 5)
    assert len(model.trainable_weights) == len(network.trainable_weights) + 3
    images = draw_volumes()[:, 0]
    np.testing.assert_allclose(unwrap_slices(model)(images), network(images))


def test_shapes_of_slices():
    (part,) = select_slices((8, 32, 24, 2), axis="height", slab=3)
    assert (part.axis, part.first, part.count, part.shape) == ("height", 0, 32, (8, 24, 6))
    assert [part.count for part in select_slices((8, 9, 5, 1), axis="all", slices="central")] == [4, 5, 3]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"depth": 5, "axis": "z"}, "axis.*'z'"),
        ({"depth": 5, "slices": "some"}, "slices.*'some'"),
        ({"depth": 5, "slab": 2}, "slab.*2"),
        ({"depth": 5, "aggregate": "median"}, "aggregate.*'median'"),
        ({}, "depth.*input_shape"),
        ({"input_shape": SHAPE, "axis": "all"}, r"\(8, 9, 2\).*height.*\(5, 9, 2\)"),
        ({"input_shape": (5, 8, 9, 1)}, r"\(8, 9, 2\).*depth.*\(8, 9, 1\)"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings, named):
    with pytest.raises(ValueError, match=named):
        wrap_slices(build(), **settings)


def build_extractor(side=(8, 9), channels=2):
    """A network to features [B, 3], with batch normalisation and dropout."""
    images = keras.Input((*side, channels))
    x = keras.layers.Conv2D(3, 3, padding="same")(images)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def pool_in_numpy(model, features, counts):
    """Logits [B, K] from features [B, N, F] of slices, of which `counts` [B, N] says which count."""
    attention, head = model.get_layer("attention"), model.get_layer("logits")
    features = (features - features.mean(-1, keepdims=True)) / np.sqrt(features.var(-1, keepdims=True) + 1e-3)
    before = np.concatenate([features[:, :1], features[:, :-1]], axis=1)
    after = np.concatenate([features[:, 1:], features[:, -1:]], axis=1)
    joined = np.concatenate([before, features, after], axis=-1)
    parts = [np.asarray(weight) for weight in attention.get_weights()]
    v, v_bias, u, u_bias, w = parts
    gated = np.tanh(joined @ v + v_bias) * expit(joined @ u + u_bias)
    weights = np.exp(gated @ w)[..., 0] * counts
    pooled = (weights[..., None] * joined).sum(1) / weights.sum(1)[:, None]
    return pooled @ np.asarray(head.kernel) + np.asarray(head.bias)


@pytest.mark.parametrize("slices", ["all", "foreground"])
def test_features_of_slices_and_their_neighbours_are_pooled_by_gated_attention(slices):
    keras.utils.set_random_seed(0)
    extractor = build_extractor()
    model = pool_slices(extractor, input_shape=SHAPE, classes=3, slices=slices, units=4)
    volumes = draw_volumes() * 0.01
    volumes[:, 1:3] += np.linspace(0, 50, 72).reshape(8, 9, 1)
    features = np.stack([np.asarray(extractor(volume)) for volume in volumes])
    counts = np.ones((3, 5)) if slices == "all" else np.array([[0, 1, 1, 0, 0]] * 3)
    expected = pool_in_numpy(model, features.astype("float64"), counts)
    np.testing.assert_allclose(model(volumes), expected, atol=1e-4)
    assert not np.allclose(model(volumes[:, ::-1]), expected, atol=1e-3)  # neighbours have an order


def test_a_frozen_network_keeps_weights_and_statistics_and_drops_nothing_in_training(tmp_path):
    keras.utils.set_random_seed(0)
    model = pool_slices(build_extractor(), input_shape=SHAPE, classes=2, dropout=0.5)
    model.save(tmp_path / "pooled.keras")
    model = keras.saving.load_model(tmp_path / "pooled.keras")
    network = find_slice_network(model)
    volumes, before = draw_volumes(), network.get_weights()
    features = keras.Model(model.inputs[0], model.get_layer("features_depth").output)
    np.testing.assert_array_equal(features(volumes, training=True), features(volumes, training=False))
    model.compile(keras.optimizers.Adam(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    first = np.asarray(model(volumes))
    model.fit(volumes, np.array([0, 1, 0]), epochs=3, verbose=0)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not np.allclose(model(volumes), first, atol=1e-3)
    assert len(model.trainable_weights) == 2 + 5 + 2  # layer normalisation, attention, head


def test_a_model_of_pooled_features_has_no_network_that_scores_slices():
    model = pool_slices(build_extractor(), input_shape=SHAPE, classes=2, is_frozen=False)
    assert unwrap_slices(model) is model
    assert not is_slice_model(model)
    assert len(model.trainable_weights) == 9 + 4
    with pytest.raises(ValueError, match=r"\(8, 9, 2\).*height.*\(5, 9, 2\)"):
        pool_slices(build_extractor(), input_shape=SHAPE, classes=2, axis="height")
