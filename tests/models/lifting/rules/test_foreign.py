"""Layers of other libraries lift if they act on each position alone, and their failures are sentences."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from lifts import image_network, lift_problems, prove
from voxlift.models.lifting import LiftError, plan_lift, register_lift_rule, unregister_lift_rule, verify_lift

# TensorFlow's variables do not accept numpy 2's copy keyword, which Keras passes when it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@keras.saving.register_keras_serializable(package="test_foreign")
class _Scale(layers.Layer):
    """A weight per channel, after an axis that the layer stores as a list when it is built."""

    def __init__(self, axis=-1, **settings):
        super().__init__(**settings)
        self.axis = axis

    def build(self, shape):
        self.axis = self.axis if isinstance(self.axis, list) else [self.axis]
        self.gamma = self.add_weight(shape=(shape[self.axis[0]],), initializer="ones", name="gamma")

    def call(self, inputs):
        return inputs * self.gamma

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}


@keras.saving.register_keras_serializable(package="test_foreign")
class _GatedDense(layers.Layer):
    """Layers inside a layer, and dropout."""

    def build(self, shape):
        self.dense, self.dropout = layers.Dense(3), layers.Dropout(0.5, seed=1)
        self.dense.build(shape)

    def call(self, inputs, training=None):
        return self.dropout(ops.tanh(self.dense(inputs)), training=training)


@keras.saving.register_keras_serializable(package="test_foreign")
class _Branches(layers.Layer):
    """Convolutions that are added, one of them in a Sequential that is built for a padded image."""

    def __init__(self, own_weight=False, **settings):
        super().__init__(**settings)
        self.own_weight = own_weight
        self.pad, self.wide = layers.ZeroPadding2D(1), layers.Conv2D(3, 3, strides=2, name="wide")
        self.narrow = keras.Sequential(
            [layers.Conv2D(3, 1, strides=2, name="narrow"), layers.BatchNormalization(name="norm")]
        )

    def build(self, shape):
        padded = self.pad.compute_output_shape(shape)
        self.wide.build(padded)
        self.narrow.build(padded)
        if self.own_weight:
            self.factor = self.add_weight(shape=(3,), name="factor")

    def call(self, inputs, training=None):
        outputs = self.wide(self.pad(inputs)) + self.narrow(inputs, training=training)
        return outputs * self.factor if self.own_weight else outputs


class _SubtractMean(layers.Layer):
    def call(self, inputs):
        return inputs - ops.mean(inputs, axis=(1, 2), keepdims=True)


class _LastRows(layers.Layer):
    """Correct at inference and on the output; its gradient in training is not."""

    def call(self, inputs, training=None):
        if not training:
            return inputs * 2
        return 2 * inputs + ops.sum(inputs - ops.stop_gradient(inputs), axis=1, keepdims=True)


class _PerPixel(layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=shape[1:], initializer="ones", name="factor")

    def call(self, inputs):
        return inputs * self.factor


class _FailsInConfig(layers.Layer):
    def call(self, inputs):
        return inputs

    def get_config(self):
        raise TypeError("no configuration for 'fancy'")


class _FailsInVolumes(layers.Layer):
    def call(self, inputs):
        if len(inputs.shape) != 4:
            raise KeyError("only images")
        return inputs


def test_a_layer_that_acts_on_each_position_alone_is_lifted_saved_and_loaded(tmp_path):
    network = image_network(lambda x: layers.Conv2D(2, 3)(_GatedDense(name="gate")(_Scale(name="scale")(x))))
    network.get_layer("scale").set_weights([np.array([1.0, 2.0, 3.0, 4.0], "float32")])
    prove(network)
    lifted = plan_lift(network, depth=8).build()
    np.testing.assert_array_equal(lifted.get_layer("scale").gamma, [1, 2, 3, 4])
    for ours, theirs in zip(lifted.get_layer("gate").weights, network.get_layer("gate").weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    lifted.save(tmp_path / "lifted.keras")
    loaded = keras.models.load_model(tmp_path / "lifted.keras")
    volume = np.random.default_rng(0).normal(size=(2, 8, 10, 12, 4)).astype("float32")
    np.testing.assert_array_equal(loaded(volume), lifted(volume))


@pytest.mark.parametrize("kind", [_SubtractMean, _LastRows, _PerPixel, _FailsInConfig, _FailsInVolumes])
def test_another_layer_is_reported_with_its_class_and_the_fix(kind):
    (problem,) = lift_problems(image_network(kind(name="strange")), depth=8)
    assert (problem.kind, problem.layer) == (kind.__name__, "strange")
    assert "register_lift_rule" in problem.fix


def test_a_layer_that_holds_layers_is_unfolded(tmp_path):
    def body(x):
        return layers.Conv2D(2, 3)(_Branches(name="branches")(x))

    network = image_network(body, (12, 8, 3))
    for policy in ("preserve", "isotropic", "slicewise"):
        prove(network, policy)
    plan = plan_lift(network, depth=8, channels=1)
    assert verify_lift(plan, random_weights=True).is_proved
    assert {"branches/wide", "branches/narrow"} <= {row["layer"] for row in plan.rows()}
    lifted = plan.build()
    assert lifted.count_params() == sum(row["params_3d"] for row in plan.rows())
    lifted.save(tmp_path / "lifted.keras")
    loaded = keras.models.load_model(tmp_path / "lifted.keras")
    volume = np.random.default_rng(0).normal(size=(2, 8, 12, 8, 1)).astype("float32")
    np.testing.assert_array_equal(loaded(volume), lifted(volume))
    (problem,) = lift_problems(image_network(_Branches(own_weight=True, name="own")), depth=8)
    assert (problem.kind, problem.layer) == ("_Branches", "own")
    assert "factor" in problem.reason


@keras.saving.register_keras_serializable(package="test_foreign")
class _Stages(layers.Layer):
    """Layers whose outputs are all returned, the input among them."""

    def build(self, shape):
        self.first, self.second = layers.Conv2D(3, 3, padding="same"), layers.Conv2D(4, 2, strides=2)
        self.first.build(shape)
        self.second.build((*shape[:-1], 3))

    def call(self, inputs):
        one = self.first(inputs)
        return inputs, one, self.second(one)

    def compute_output_shape(self, shape):
        return shape, (*shape[:-1], 3), self.second.compute_output_shape((*shape[:-1], 3))


def test_a_layer_that_returns_what_several_layers_return_is_unfolded():
    def body(x):
        pooled = [layers.GlobalAveragePooling2D()(each) for each in _Stages(name="stages")(x)]
        return layers.Concatenate()(pooled)

    lifted = prove(image_network(body), tolerance=1e-12)
    assert lifted.output_shape == (None, 11)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_a_lambda_is_named_if_keras_has_the_same_activation():
    gelu, other = (lambda y: keras.activations.gelu(y, approximate=False)), (lambda y: ops.sin(2 * y))
    lifted = prove(image_network(layers.Conv2D(3, 3, activation=gelu)), tolerance=1e-12)
    assert lifted.layers[-1].activation is keras.activations.gelu
    (problem,) = lift_problems(image_network(layers.Conv2D(3, 3, activation=other)), depth=8)
    assert problem.kind == "Conv2D"


def test_an_identity_that_keras_cannot_describe_is_kept():
    policy = keras.DTypePolicy("float32")
    network = image_network(lambda x: layers.Identity(dtype=policy, name="same")(layers.Conv2D(3, 1)(x)))
    assert prove(network, tolerance=1e-12).get_layer("same").dtype_policy == policy


def test_the_message_of_failed_code_is_quoted():
    (problem,) = lift_problems(image_network(_FailsInConfig()), depth=8)
    assert "TypeError" in problem.reason
    assert "'fancy'" in problem.reason
    (problem,) = lift_problems(image_network(_FailsInVolumes()), depth=8)
    assert "only images" in problem.reason


@pytest.fixture
def _registered():
    register_lift_rule(_FailsInVolumes)
    yield
    unregister_lift_rule(_FailsInVolumes)


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("is_sequential", [False, True])
def test_code_that_fails_while_the_network_is_built_is_reported(is_sequential):
    network = image_network(_FailsInVolumes(name="strange"))
    if is_sequential:
        network = keras.Sequential([keras.Input((10, 12, 4)), _FailsInVolumes(name="strange")])
    plan = plan_lift(network, depth=8)
    for build in (plan.build, lambda: verify_lift(plan)):
        with pytest.raises(LiftError) as caught:
            build()
        assert [problem.layer for problem in caught.value.problems] == ["strange"]
        assert "only images" in str(caught.value)
