"""Vision transformers lift exactly: patches, positions, class tokens and attention over all planes."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from lifts import image_network, lift_problems, prove
from voxlift.models.layers import TokenAttention3D, TokenEmbedding3D
from voxlift.models.lifting import plan_lift, verify_lift

# TensorFlow's variables do not accept numpy 2's copy keyword, which Keras passes when it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EXACT = 1e-6


@keras.saving.register_keras_serializable(package="test_tokens")
class _Positions(layers.Layer):
    """Position embeddings, and a class token before them if asked for."""

    def __init__(self, with_class=False, **settings):
        super().__init__(**settings)
        self.with_class = with_class

    def build(self, shape):
        self.table = self.add_weight(shape=(1, shape[1] + self.with_class, shape[2]), name="table")
        if self.with_class:
            self.token = self.add_weight(shape=(1, 1, shape[2]), name="token", initializer="zeros")

    def call(self, inputs):
        if self.with_class:
            token = ops.tile(self.token, (ops.shape(inputs)[0], 1, 1))
            inputs = ops.concatenate([token, inputs], axis=1)
        return inputs + self.table

    def get_config(self):
        return {**super().get_config(), "with_class": self.with_class}


@keras.saving.register_keras_serializable(package="test_tokens")
class _ClassToken(layers.Layer):
    """Class tokens, of which only the batch size is read from the inputs."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 2, shape[2]), name="token", initializer="random_normal")

    def call(self, inputs):
        return ops.tile(self.token, (ops.shape(inputs)[0], 1, 1))


def _block(x, number, **settings):
    y = layers.LayerNormalization(name=f"norm_{number}")(x)
    x = layers.Add()([x, layers.MultiHeadAttention(3, 4, name=f"attention_{number}", **settings)(y, y)])
    y = layers.Dense(16, activation="gelu")(layers.LayerNormalization()(x))
    return x + layers.Dense(8)(layers.Dropout(0.1)(y))


def transformer(head="class", shape=(12, 8, 1), **settings):
    """A small vision transformer: "class" token, two class tokens "before" the positions, or "mean"."""

    def body(image):
        x = layers.Conv2D(8, 4, strides=4, name="patches")(image)
        x = layers.Reshape((-1, 8), name="tokens")(x)
        if head == "before":
            x = layers.Concatenate(axis=1)([_ClassToken(name="class")(x), x])
        x = _Positions(with_class=head == "class", name="positions")(x)
        for number in range(2):
            x = _block(x, number, **settings)
        x = layers.LayerNormalization()(x)
        x = layers.GlobalAveragePooling1D()(x) if head == "mean" else x[:, 0]
        return layers.Dense(3, name="head")(x)

    return image_network(body, shape)


@pytest.mark.parametrize("head", ["class", "before", "mean"])
def test_a_vision_transformer_is_exact_with_and_without_class_token(head):
    for depth, policy in ((4, "isotropic"), (8, "isotropic"), (4, "slicewise"), (8, "preserve")):
        lifted = prove(transformer(head), policy, depth=depth, tolerance=EXACT)
        planes = depth // 4 if policy == "isotropic" else depth
        assert lifted.get_layer("tokens").output.shape[1] == planes * 6
        assert lifted.get_layer("attention_0").planes == planes
        assert lifted.get_layer("positions").positions.shape == (planes, 6, 8)


def test_the_class_token_keeps_its_share_only_with_the_correction():
    plan = plan_lift(transformer(), depth=8, depth_policy="slicewise")
    images = np.random.default_rng(0).normal(size=(2, 12, 8, 1)).astype("float32")
    expected = plan.model_2d(images)
    lifted = plan.build()
    volumes = np.repeat(images[:, None], 8, axis=1)
    np.testing.assert_allclose(lifted(volumes), expected, rtol=1e-4, atol=1e-5)
    for number in range(2):
        lifted.get_layer(f"attention_{number}").planes = 1
    assert np.abs(np.asarray(lifted(volumes)) - np.asarray(expected)).max() > 1e-4


def test_two_different_planes_are_connected():
    lifted = plan_lift(transformer(), depth=8, init="mean").build()
    volume = np.random.default_rng(0).normal(size=(1, 8, 12, 8, 1)).astype("float32")
    moved = volume.copy()
    moved[:, 7] += 1
    assert np.abs(np.asarray(lifted(moved)) - np.asarray(lifted(volume))).max() > 1e-5


def test_a_lifted_transformer_trains_in_bfloat16_and_is_saved_and_loaded(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = transformer(dropout=0.2)
    finally:
        keras.config.set_dtype_policy("float32")
    lifted = plan_lift(network, depth=8).build()
    attention = lifted.get_layer("attention_0")
    assert attention.compute_dtype == "bfloat16"
    lifted.compile(keras.optimizers.SGD(0.1), "mse")
    volumes = np.random.default_rng(0).normal(size=(2, 8, 12, 8, 1)).astype("float32")
    losses = [lifted.train_on_batch(volumes, np.ones((2, 3), "float32")) for _ in range(4)]
    assert losses[-1] < losses[0]
    lifted.save(tmp_path / "lifted.keras")
    loaded = keras.models.load_model(tmp_path / "lifted.keras")
    assert isinstance(loaded.get_layer("attention_0"), TokenAttention3D)
    assert isinstance(loaded.get_layer("positions"), TokenEmbedding3D)
    np.testing.assert_array_equal(loaded(volumes), lifted(volumes))


def test_tokens_become_images_and_vectors_again():
    def image(x):
        x = layers.Reshape((6, 8))(layers.Conv2D(8, 4, strides=4)(x))
        return layers.Conv2D(2, 3, padding="same")(layers.Reshape((3, 2, 8))(_block(x, 0)))

    assert prove(image_network(image, (12, 8, 1)), depth=8, tolerance=EXACT).output_shape == (
        None,
        2,
        3,
        2,
        2,
    )

    def vectors(x):
        x = ops.reshape(layers.Conv2D(8, 4, strides=4)(x), (-1, 6, 8))
        x = layers.Concatenate(axis=1)([_ClassToken()(x), x])
        both = ops.concatenate([x, ops.tanh(x)], axis=-1)
        pooled = [layers.GlobalMaxPooling1D()(both), ops.mean(both[:, 2:], axis=1), both[:, 1]]
        queries = layers.MultiHeadAttention(2, 4)(query=x[:, :1], value=x)
        return layers.Concatenate()([*pooled, queries[:, 0]])

    assert prove(image_network(vectors, (12, 8, 1)), depth=8, tolerance=EXACT).output_shape == (None, 56)


def test_the_mean_of_class_and_other_tokens_is_inexact():
    def body(x):
        x = _Positions(with_class=True)(layers.Reshape((-1, 8))(layers.Conv2D(8, 4, strides=4)(x)))
        return layers.GlobalAveragePooling1D(name="pool")(x)

    plan = plan_lift(image_network(body, (12, 8, 1)), depth=8)
    assert list(plan.inexact) == ["pool"]
    assert verify_lift(plan, random_weights=True).verdict == "not exact by plan"


class _Relative(layers.Layer):
    def build(self, shape):
        self.bias = self.add_weight(shape=(shape[1], 1), name="relative_position_bias_table")

    def call(self, inputs):
        return inputs + self.bias


UNSUPPORTED = {
    "MultiHeadAttention": lambda x: layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True),
    "GetItem": lambda x: x[:, 3],
    "Softmax": layers.Softmax(axis=1),
    "Conv1D": layers.Conv1D(8, 3),
    "_Relative": _Relative(),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_what_is_not_defined_for_tokens_is_reported(kind):
    def body(x):
        return UNSUPPORTED[kind](layers.Reshape((-1, 8))(layers.Conv2D(8, 4, strides=4)(x)))

    (problem,) = lift_problems(image_network(body, (12, 8, 1)), depth=8)
    assert problem.kind == kind
    assert problem.fix


def test_tokens_need_a_known_depth_and_positions_the_plane_of_the_2d_network():
    assert {problem.kind for problem in lift_problems(transformer())} >= {"Reshape"}
    problems = lift_problems(transformer(), input_shape=(8, 16, 8))
    assert [problem.kind for problem in problems] == ["_Positions"]


@pytest.mark.filterwarnings("ignore:.*pretrained weights:UserWarning")
def test_the_transformer_of_kimm_is_exact():
    kimm = pytest.importorskip("kimm")
    network = kimm.models.VisionTransformerTiny32(
        input_shape=(64, 64, 3), weights=None, classes=2, classifier_activation=None
    )
    prove(network, {"default": "isotropic", "patch_embed_conv": "slicewise"}, depth=4, tolerance=1e-5)
    lifted = plan_lift(network, depth=64).build()
    assert not any("kimm" in type(layer).__module__ for layer in lifted.layers)
