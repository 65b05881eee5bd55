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


def _without_class_token():
    return transformer("mean", dropout=0.2)


def _of_patches():
    return _mobile_transformer(lambda tokens: _linear_attention(_group_attention(tokens, name="attention_0")))


@pytest.mark.parametrize("build", [_without_class_token, _of_patches])
def test_a_lifted_transformer_without_class_token_trains_in_bfloat16(build):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = build()
    finally:
        keras.config.set_dtype_policy("float32")
    lifted = plan_lift(network, depth=8).build()
    assert lifted.get_layer("attention_0").compute_dtype == "bfloat16"
    lifted.compile(keras.optimizers.SGD(0.002), "mse")
    volumes = np.random.default_rng(0).normal(size=(2, 8, 12, 8, 1)).astype("float32")
    losses = [lifted.train_on_batch(volumes, np.ones((2, 3), "float32")) for _ in range(4)]
    assert losses[-1] < losses[0]


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
    "Softmax": layers.Softmax(axis=(1, 2)),
    "Sum": lambda x: ops.sum(x, axis=(1, 2)),
    "Split": lambda x: ops.split(x, 2, axis=1)[0],
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


def test_tokens_need_a_known_depth():
    assert {problem.kind for problem in lift_problems(transformer())} >= {"Reshape"}


def test_positions_are_interpolated_for_planes_of_other_sides():
    network = transformer()
    plan = plan_lift(network, input_shape=(8, 24, 12))
    assert plan.build().get_layer("positions").positions.shape == (2, 18, 8)
    proof = verify_lift(plan, random_weights=True)
    assert proof.is_proved, str(proof)
    rows, columns = np.meshgrid(np.arange(3.0), np.arange(2.0), indexing="ij")
    table = network.get_layer("positions").table
    ramp = np.concatenate([[9.0], (rows + 10 * columns).ravel()])[None, :, None]
    table.assign(np.broadcast_to(ramp, table.shape))
    layer = plan.build().get_layer("positions")
    grid = np.asarray(layer.positions)[1, :, 0].reshape(6, 3)
    np.testing.assert_allclose(grid[1:5, 1], [5.25, 5.75, 6.25, 6.75])  # a ramp stays a ramp
    np.testing.assert_allclose(grid[[0, -1]][:, [0, -1]], [[0, 10], [2, 12]])
    np.testing.assert_allclose(layer.prefix_tokens[0, 0], 9)


def _unfold(image, patch=2):
    """Tokens [B, P, T, C] of an image [B, H, W, C]: those with the same place in their patch are a group."""
    height, width, channels = image.shape[1:]
    x = ops.reshape(image, (-1, height // patch, patch, width // patch, patch, channels))
    x = ops.transpose(x, (0, 2, 4, 1, 3, 5))
    return ops.reshape(x, (-1, patch * patch, height * width // patch**2, channels))


def _fold(tokens, image, patch=2):
    height, width, channels = image.shape[1:]
    x = ops.reshape(tokens, (-1, patch, patch, height // patch, width // patch, channels))
    x = ops.transpose(x, (0, 3, 1, 4, 2, 5))
    return ops.reshape(x, (-1, height, width, channels))


def _group_attention(tokens, name="attention"):
    y = layers.LayerNormalization()(tokens)
    return tokens + layers.MultiHeadAttention(2, 4, attention_axes=(2,), name=name)(y, y)


def _linear_attention(tokens):
    """A context vector of the keys, weighted by a softmax over all tokens, times the value of each token."""
    y = layers.Conv2D(17, 1)(layers.GroupNormalization(1)(tokens))
    query, key, value = ops.split(y, [1, 9], axis=-1)
    context = ops.sum(layers.Multiply()([key, ops.softmax(query, axis=-2)]), axis=-2, keepdims=True)
    y = layers.Multiply()([layers.ReLU()(value), context]) + ops.sigmoid(value) * context
    return layers.Add()([tokens, layers.Conv2D(8, 1, name="attention")(y)])


def _mobile_transformer(attention, shape=(12, 8, 1)):
    def body(image):
        image = layers.Conv2D(8, 3, padding="same", strides=2)(image)
        image = _fold(attention(_unfold(image)), image)
        return layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, padding="same")(image)))

    return image_network(body, shape)


@pytest.mark.parametrize("attention", [_group_attention, _linear_attention])
def test_attention_between_the_patches_of_an_image_is_exact(attention, tmp_path):
    for depth, policy in ((4, "isotropic"), (8, "isotropic"), (4, "slicewise"), (8, "preserve")):
        lifted = prove(_mobile_transformer(attention), policy, depth=depth, tolerance=EXACT)
        planes = depth // 2 if policy == "isotropic" else depth
        assert lifted.get_layer("attention").output.shape == (None, 4, planes * 6, 8)
    volume = np.random.default_rng(0).normal(size=(1, 8, 12, 8, 1)).astype("float32")
    moved = volume.copy()
    moved[:, 7] += 1  # another plane changes what all planes attend to
    inner = keras.Model(lifted.input, lifted.get_layer("attention").output)
    assert np.abs(np.asarray(inner(moved) - inner(volume)))[:, :, :6].max() > 1e-6
    lifted.save(tmp_path / "lifted.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "lifted.keras")(volume), lifted(volume))


def test_patches_keep_their_size_on_other_sides_and_must_divide_them():
    network = _mobile_transformer(_linear_attention)
    lifted = plan_lift(network, input_shape=(6, 20, 12)).build()
    assert lifted.get_layer("attention").output.shape == (None, 4, 3 * 15, 8)
    proof = verify_lift(plan_lift(network, input_shape=(6, 20, 12)), random_weights=True)
    assert proof.is_proved, str(proof)
    assert lift_problems(network, input_shape=(6, 18, 12))[0].kind == "Reshape"


def test_a_reshape_puts_the_pixels_of_patches_into_channels():
    def to_channels(x):
        x = layers.Permute((1, 3, 2, 4, 5))(layers.Reshape((6, 2, 4, 2, 3))(x))
        return layers.Conv2D(4, 3)(layers.Reshape((6, 4, 12))(x))

    prove(image_network(to_channels, (12, 8, 3)), depth=4, tolerance=EXACT)

    def to_windows(x):  # of an image of one window; the batch of windows has no depth
        x = ops.transpose(ops.reshape(x, (-1, 3, 4, 2, 4, 3)), (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, 16, 3))

    assert lift_problems(image_network(to_windows, (12, 8, 3)), depth=4)[0].kind == "Reshape"


@pytest.mark.filterwarnings("ignore:.*pretrained weights:UserWarning", "ignore:.*a softmax over axis")
@pytest.mark.parametrize("name", ["MobileViTXXS", pytest.param("MobileViTV2W050", marks=pytest.mark.slow)])
def test_the_mobile_transformers_of_kimm_are_exact(name):
    kimm = pytest.importorskip("kimm")
    network = getattr(kimm.models, name)(
        input_shape=(64, 64, 3), weights=None, classes=2, classifier_activation=None
    )
    prove(network, "preserve", depth=4, tolerance=1e-5)
    lifted = plan_lift(network, depth=32).build()
    assert not any("kimm" in type(layer).__module__ for layer in lifted.layers)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("use_class_token", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_transformer_of_keras_hub_is_exact(use_class_token, tmp_path):
    models = pytest.importorskip("keras_hub").models
    size = {"patch_size": 8, "num_layers": 1, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 48}
    backbone = models.ViTBackbone(image_shape=(32, 16, 3), use_class_token=use_class_token, **size)
    x = backbone.output
    x = x[:, 0] if use_class_token else layers.GlobalAveragePooling1D()(x)
    network = keras.Model(backbone.input, layers.Dense(3, name="head")(x))
    for depth, policy in ((4, "preserve"), (8, "isotropic")):
        prove(network, policy, depth=depth, tolerance=1e-6)
    plan = plan_lift(network, depth=16)
    weights = [np.random.default_rng(0).normal(size=each.shape) for each in network.weights]
    network.set_weights(weights)
    lifted = plan.build()  # with the weights that the network has now
    slices = np.random.default_rng(0).normal(size=(2, 32, 16, 3)).astype("float32")
    volumes = np.repeat(slices[:, None], 16, axis=1)
    np.testing.assert_allclose(lifted(volumes), network(slices), rtol=1e-3, atol=1e-3)
    lifted.save(tmp_path / "lifted.keras")
    np.testing.assert_array_equal(
        keras.models.load_model(tmp_path / "lifted.keras")(volumes), lifted(volumes)
    )
    assert not any("keras_hub" in type(layer).__module__ for layer in lifted.layers)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Layer 'attn'")
def test_a_table_of_relative_positions_is_the_reason_of_a_refusal():
    models = pytest.importorskip("keras_hub").models
    network = models.SwinTransformerBackbone(
        image_shape=(32, 32, 3), embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4
    )
    problems = lift_problems(network, depth=4, depth_policy="preserve")
    assert any("relative positions" in problem.reason for problem in problems)


@pytest.mark.filterwarnings("ignore:.*pretrained weights:UserWarning")
def test_the_transformer_of_kimm_is_exact():
    kimm = pytest.importorskip("kimm")
    network = kimm.models.VisionTransformerTiny32(
        input_shape=(64, 64, 3), weights=None, classes=2, classifier_activation=None
    )
    prove(network, {"default": "isotropic", "patch_embed_conv": "slicewise"}, depth=4, tolerance=1e-5)
    lifted = plan_lift(network, depth=64).build()
    assert not any("kimm" in type(layer).__module__ for layer in lifted.layers)
