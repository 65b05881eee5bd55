"""Rules of the user's own, and the report of all layers without a rule."""

import keras
import pytest
from keras import layers, ops

from lifts import image_network, lift_problems, prove
from voxlift.models.lifting import (
    LayerCall,
    Lifted,
    register_lift_rule,
    unregister_lift_rule,
    weight_transfer,
)


@keras.saving.register_keras_serializable(package="test")
class _Twice(layers.Layer):
    def call(self, inputs):
        return inputs * 2


@keras.saving.register_keras_serializable(package="test")
class _PerAxis(layers.Layer):
    """A weight per channel, for an image [B, H, W, C] or a volume [B, D, H, W, C] of a declared rank."""

    def __init__(self, rank=4, **settings):
        super().__init__(**settings)
        self.rank = rank

    def build(self, shape):
        self.factor = self.add_weight(shape=(*[1] * (self.rank - 2), shape[-1]), name="kernel")

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {**super().get_config(), "rank": self.rank}


class _Centred(layers.Layer):
    def call(self, inputs):
        return inputs - ops.mean(inputs, axis=(1, 2), keepdims=True)


class _Shift(layers.Layer):
    def call(self, inputs):
        return ops.roll(inputs, 1, axis=1)


def _lift_per_axis(call: LayerCall) -> Lifted:
    volume = call.require_volume()
    return Lifted(
        _PerAxis,
        {**call.config, "rank": 5},
        (volume.replace(is_nonnegative=False),),
        weight_shapes=((1, *call.weight_shapes[0]),),
        **weight_transfer(call, lambda weights: [weights[0][None]], "copied"),
    )


@pytest.fixture
def _registered():
    register_lift_rule(_Twice)
    register_lift_rule(_PerAxis, _lift_per_axis)
    yield
    unregister_lift_rule(_Twice)
    unregister_lift_rule(_PerAxis)


def _body(x):
    return layers.Conv2D(2, 3)(_PerAxis(name="axis")(_Twice(name="twice")(x)))


@pytest.mark.usefixtures("_registered")
def test_a_layer_of_the_users_lifts_by_its_registered_rule():
    lifted = prove(image_network(_body))
    assert lifted.get_layer("axis").factor.shape == (1, 1, 1, 4)


def test_all_layers_without_a_rule_are_reported_together():
    def without_rules(x):
        return layers.Conv2D(2, 3)(_Shift(name="shift")(_Centred(name="centred")(x)))

    kinds = [problem.kind for problem in lift_problems(image_network(without_rules), depth=5)]
    assert kinds == ["_Centred", "_Shift"]

    def body(x):
        x = layers.Permute((2, 1, 3), name="turn")(x)
        x = layers.Conv2D(8, 3, padding="same", name="conv")(ops.flip(x))
        x = ops.nn.max_pool(layers.Lambda(lambda y: y * 2, name="twice")(x), 2, strides=2)
        tokens = layers.Reshape((8, 16), name="tokens")(x)
        return layers.MultiHeadAttention(2, 4)(tokens, tokens)

    problems = lift_problems(image_network(body, (8, 8, 4)), depth=8)
    kinds = [problem.kind for problem in problems]
    assert kinds[:2] == ["Permute", "Flip"]
    assert {"Lambda", "MaxPool", "Reshape"} <= set(kinds)
    assert problems[kinds.index("Lambda")].layer == "twice"
    assert "register_lift_rule" in problems[kinds.index("Lambda")].fix
    assert all(problem.fix for problem in problems if problem.kind != "Conv2D")
